# Boots a systemd of its own in a throw-away root: machine.sh CGROUP PLACE BIND...
# PLACE is a directory with the units in units/.
# What it writes vanishes with it: the root is an overlay over / whose upper layer is a tmpfs; /tmp,
# /run and /dev are its own, /sys and /proc/sys read-only, and it finds only those units.
# Each BIND is shown inside at its own path, read-only.
set -eu
echo $$ >"$1/cgroup.procs"
# Whoever started it may be killed: it must not outlive that.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --pdeathsig KILL \
    unshare --mount --propagation private --pid --fork --kill-child --cgroup --ipc --uts \
    bash -euc '
place=$1
shift
mkdir "$place/machine"
mount -t tmpfs -o mode=755 sdbox "$place/machine"
cd "$place/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
root=$PWD/root
mount -t proc -o nosuid,nodev,noexec proc "$root"/proc
mount --bind "$root"/proc/sys "$root"/proc/sys
mount -o remount,bind,ro "$root"/proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root"/sys
mount -t cgroup2 cgroup2 "$root"/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs "$root"/run
mount -t tmpfs -o mode=1777 tmpfs "$root"/tmp
mount -t tmpfs -o mode=755 tmpfs "$root"/dev
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
    IFS=: read -r name major minor <<<"$device"
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd "$root"/dev/fd
mkdir "$root"/dev/shm "$root"/dev/pts
mount -t tmpfs tmpfs "$root"/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root"/dev/pts
ln -s pts/ptmx "$root"/dev/ptmx
# The units of the machine, and what is enabled there, are hidden.
mount -t tmpfs -o mode=755 tmpfs "$root"/etc/systemd/system
cp -a "$place/units/." "$root"/etc/systemd/system/
rm -f "$root"/etc/machine-id
tr -d - </proc/sys/kernel/random/uuid >"$root"/etc/machine-id
for path; do
    mkdir -p "$root$path"
    mount --bind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
done
mkdir "$root"/old
cd "$root"
pivot_root . old
# Mounts of the machine would keep its file systems busy, FUSE ones above all.
umount -l /old
rmdir /old
mount --make-rshared / # as on every machine that runs systemd
exec env -i PATH="$PATH" container=sdbox SYSTEMD_UNIT_PATH=/etc/systemd/system \
    /lib/systemd/systemd --system --unit=sdbox.target --log-target=console --log-level=notice \
    --show-status=0
' sdbox "${@:2}"
