# bash completion for overlayd. Goes to PREFIX/share/bash-completion/completions/overlayd, or is
# sourced from ~/.bashrc.

_overlayd() {
    # Bash takes a word apart at ':' and '='; HOST::GUEST is one word to overlayd.
    local line=${COMP_LINE:0:COMP_POINT} part rest word='' prefix IFS=$'\n'
    local -a words=()
    rest=$line
    for part in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ $rest == [[:blank:]]* ]]; then
            words+=("$word") word=
            while [[ $rest == [[:blank:]]* ]]; do rest=${rest:1}; done
        fi
        part=${part:0:${#rest}} # the cursor may stand in the middle of the word
        word+=$part rest=${rest:${#part}}
    done
    words+=("$word")

    local response kind value
    response=$(COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) \
        _OVERLAYD_COMPLETE=bash_complete "$1" 2>/dev/null) || return
    # What is replaced is only what follows the last ':' or '='.
    prefix=${word%"${word##*[:=]}"}
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
        plain) COMPREPLY+=("${value#"$prefix"}") ;;
        dir) compopt -o dirnames -o nosort && COMPREPLY=() ;;
        file) compopt -o default && COMPREPLY=() ;;
        esac
    done <<<"$response"
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}

complete -o nosort -F _overlayd overlayd
