# For preflight.sh and deploy-stack.sh: docker/.env as Compose reads it.

read_env_file() { # FILE: exports its variables, without those that the environment has; env_file_problem says why not
    local line name value number=0
    local assignment='^[[:space:]]*(export[[:space:]]+)?([A-Za-z_][A-Za-z0-9_]*)[[:space:]]*=[[:space:]]*(.*)$'
    local single="^'(([^'\\\\]|\\\\.)*)'[[:space:]]*(#.*)?\$"
    local double='^"(([^"\\]|\\.)*)"[[:space:]]*(#.*)?$'
    [ -e "$1" ] || return 0
    if [ ! -f "$1" ] || [ ! -r "$1" ]; then
        env_file_problem="$1 cannot be read by $(id -un): change its owner or its mode"
        return 1
    fi
    while IFS= read -r line || [ -n "$line" ]; do
        number=$((number + 1))
        line=${line%$'\r'}
        [[ ! $line =~ ^[[:space:]]*(#.*)?$ ]] || continue
        if [[ ! $line =~ $assignment ]]; then
            env_file_problem="line $number of $1 is no NAME=VALUE"
            return 1
        fi
        name=${BASH_REMATCH[2]} value=${BASH_REMATCH[3]}
        if [[ $value =~ $single ]]; then
            value=${BASH_REMATCH[1]//"\\'"/"'"}
        elif [[ $value =~ ^[\'] ]] || [[ $value =~ ^[\"] && ! $value =~ $double ]]; then
            env_file_problem="line $number of $1: the quote of $name is not closed there; write the value on one line,\
 as the scripts read none of several"
            return 1
        else
            if [[ $value =~ $double ]]; then
                in_double_quotes "${BASH_REMATCH[1]}"
            else
                [[ ! $value =~ [[:space:]]# ]] || value=${value%%"${BASH_REMATCH[0]}"*}
                value=${value%"${value##*[![:space:]]}"}
            fi
            if [[ $value == *'$'* ]]; then
                # Compose puts in what other variables are.
                env_file_problem="line $number of $1: put the value of $name into single quotes, as it has a \$"
                return 1
            fi
        fi
        [ -n "${!name+set}" ] || export "$name=$value"
    done <"$1"
}

in_double_quotes() { # TEXT: sets value to what Compose makes of it, which knows fewer escapes than printf
    local rest=$1
    value=
    while [[ $rest =~ ^([^\\]*)\\(0[0-3][0-7][0-7]|.)(.*)$ ]]; do
        value+=${BASH_REMATCH[1]} rest=${BASH_REMATCH[3]}
        case ${BASH_REMATCH[2]} in
            \") value+=\" ;;
            [abfnrtv\\] | 0???) printf -v value '%s%b' "$value" "\\${BASH_REMATCH[2]}" ;;
            *) value+=\\${BASH_REMATCH[2]} ;;
        esac
    done
    value+=$rest
}
