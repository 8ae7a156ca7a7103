# Checks that scripts of this folder share; they set $work before they source it.
fail() { echo "FAILED: $*"; exit 1; }
has() {  # has FILE KEY...
  local file=$1 key
  shift
  for key in "$@"; do grep -q "\"$key\"" "$file" || fail "$file: expected the key $key"; done
}
# expect CODE WORD command...: exit code, the word in stdout or stderr.
expect() {
  local code=$1 word=$2 got=0
  shift 2
  "$@" > "$work/both" 2>&1 || got=$?
  [ "$got" -eq "$code" ] && grep -q -e "$word" "$work/both" || fail "${*##*/}: code $got: $(cat "$work/both")"
}
