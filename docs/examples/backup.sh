#!/usr/bin/env bash
# Backs up all versions of a file with borg, so that each can be restored without HDF5. What did not change since the last backup
# is not read. Meant for cron or a systemd timer.
#
#   backup.sh FILE MOUNTPOINT REPOSITORY
#
# MOUNTPOINT is the same directory each time: borg knows files by their full paths.
set -euo pipefail
file=$1 mountpoint=$2 repository=$3

[ -e "$repository" ] || borg init --encryption=none "$repository"
vh5fs mount --read-only "$file" "$mountpoint"
trap 'vh5fs umount "$mountpoint"' EXIT

# borg reads the newest file of a backup again next time, in case it was written to meanwhile: this one is made to be that.
stamp=$mountpoint.stamp
date >"$stamp"

borg create --list --filter=AM "$repository::{now:%Y-%m-%dT%H:%M:%S.%f}" "$mountpoint/versions" "$stamp"
borg prune --keep-daily=7 --keep-weekly=4 --keep-monthly=12 "$repository"
