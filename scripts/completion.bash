# bash completion of the kvc commands: subcommands, options and files. Options are read from --help.
_kvc() {
  local word=${COMP_WORDS[COMP_CWORD]} help words i
  local -a path=("${COMP_WORDS[0]}")
  for ((i = 1; i < COMP_CWORD; ++i)); do
    # A subcommand is the first word, in small letters.
    [[ $i -eq 1 && ${COMP_WORDS[i]} =~ ^[a-z]+$ ]] && path+=("${COMP_WORDS[i]}")
  done
  help=$("${path[@]}" --help 2>/dev/null) || help=$("${COMP_WORDS[0]}" --help 2>/dev/null) || return 0
  if [[ $word == -* ]]; then
    words=$(grep -oE -- '--[a-z][a-z0-9-]*' <<<"$help" | sort -u)
  elif [[ $COMP_CWORD -eq 1 ]]; then
    words=$(awk '/^Subcommands:/ {on = 1; next} /^$/ {on = 0} on && /^  [a-z]/ {print $1}' <<<"$help")
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  [[ $word == -* ]] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$word")
}
complete -o filenames -F _kvc kvc kvc-bench kvc-eval kvc-export kvc-factorize kvc-profile kvc-run kvc-train
