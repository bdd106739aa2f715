#!/bin/sh
# The smallest reward: a shell script. 1 if the answer says "please" or "thank", else 0.
# It reads the id by pattern, which is enough because Plumb always writes it first.
while IFS= read -r line; do
  id=${line#'{"id":'}
  id=${id%%,*}
  answer=${line#*'"completion":"'}
  answer=${answer%%'","ground_truth"'*}
  case $answer in
    *[Pp]lease* | *[Tt]hank*) score=1 ;;
    *) score=0 ;;
  esac
  printf '{"id":%s,"score":%s}\n' "$id" "$score"
done
