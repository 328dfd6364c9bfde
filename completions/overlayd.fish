# fish completion for overlayd. Goes to /etc/fish/completions or ~/.config/fish/completions.

function __overlayd_complete
    set -l command (commandline -opc)[1]
    set -l current (commandline -ct)
    set -l option (string match -r -- '^--[^=]*=' $current) # the answers are values without it
    test -n "$option" || set option ''
    set -l value (string replace -- "$option" '' $current)
    set -l response (env _OVERLAYD_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) \
        COMP_CWORD=$current $command 2>/dev/null)
    for line in $response
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case dir
                string join \n -- $option(__fish_complete_directories $value)
            case file
                string join \n -- $option(__fish_complete_path $value)
            case plain
                echo "$option$item[2]"
        end
    end
end

complete --no-files --command overlayd --arguments '(__overlayd_complete)'
