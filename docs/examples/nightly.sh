#!/usr/bin/env bash
# Appends a day's measurements to a dataset and commits them as the version nightly-DAY. A second run for the same day does nothing; a
# run that fails leaves the file as it was.
#
#   nightly.sh MOUNTPOINT DATASET DAY ROWS
#
# ROWS is a file with whole rows of the dataset, as its elements are stored.
set -euo pipefail
mountpoint=$1 dataset=$2 day=$3 rows=$4
version=nightly-$day

if [ -e "$mountpoint/versions/$version" ]; then
    echo "$version is there already"
    exit
fi
# What an earlier run left behind, if it was interrupted.
touch "$mountpoint/staging/.reset"
cat "$rows" >>"$mountpoint/staging/$dataset"
setfattr -n user.last_day -v "$day" "$mountpoint/staging/$dataset"
vh5fs commit "$mountpoint" "$version"
