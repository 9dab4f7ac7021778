#!/usr/bin/env bash
# Lines of fstab, by the real mount(8), in namespaces of our own: nothing here outlives the script.
#
#   unshare --mount --pid --fork --kill-child bash fstab.sh PROGRAM FILE SCRATCH
#
# FILE has the dataset `values` in the version `r1`. SCRATCH is an empty folder. Must be run by root.
set -euo pipefail
trap 'printf "failed in line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR

# The shell does not end where `! COMMAND` succeeds.
fails() { if "$@"; then return 1; fi; }

program=$1 file=$2 scratch=$3
mount -t proc proc /proc

# Machines without udev keep the device to root.
if [ -z "$(find /dev/fuse -perm -666)" ]; then
    mknod -m 666 "$scratch/fuse" c 10 229
    mount --bind "$scratch/fuse" /dev/fuse
fi

# As a package installs it, where mount(8) looks. Whoever the user is may run it.
mkdir "$scratch/upper" "$scratch/work" "$scratch/plain" "$scratch/automount" "$scratch/home"
chmod 755 "$scratch"
cp "$program" "$scratch/vh5fs"
ln -s "$scratch/vh5fs" "$scratch/upper/mount.fuse.vh5fs"
mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$scratch/upper,workdir=$scratch/work" overlay /usr/sbin

mine=$scratch/home/mine.h5
cp "$file" "$mine"
mkdir "$scratch/home/user"
chown -R 65534:65534 "$scratch/home"
cat >"$scratch/fstab" <<FSTAB
$file $scratch/plain     fuse.vh5fs ro,allow_other,cache_size=64M 0 0
$file $scratch/automount fuse.vh5fs ro,allow_other,noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=60,x-systemd.requires-mounts-for=$scratch 0 2
$mine $scratch/home/user fuse.vh5fs noauto,user,noatime 0 0
FSTAB
mount --bind "$scratch/fstab" /etc/fstab

# shows DIRECTORY OPTION...: it is mounted, with what the kernel knows of the options, and can be read.
shows() {
    local found option
    found=$(findmnt -n -o FSTYPE,OPTIONS "$1")
    for option in fuse.vh5fs nosuid nodev "${@:2}"; do
        grep -qw "$option" <<<"$found" || { printf '%s: no %s in %s\n' "$1" "$option" "$found" >&2; return 1; }
    done
    cmp "$1/versions/r1/values" "$scratch/plain/versions/r1/values"
}

mount -a -T "$scratch/fstab"
shows "$scratch/plain" ro allow_other
[ "$(stat -c %s "$scratch/plain/versions/r1/values")" = 4000 ]
fails mountpoint -q "$scratch/automount"
fails mountpoint -q "$scratch/home/user"
# What is mounted is left alone.
mount -a -T "$scratch/fstab"
[ "$(grep -c "$scratch/plain" /proc/self/mounts)" = 1 ]

# What systemd mounts when somebody looks.
mount -T "$scratch/fstab" "$scratch/automount"
shows "$scratch/automount" ro allow_other
umount "$scratch/automount"
mount -v "$scratch/automount"
shows "$scratch/automount" ro
umount "$scratch/automount"
mount -f "$scratch/automount"
fails mountpoint -q "$scratch/automount"

# An ordinary user: his file, his directory, his mount.
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
as 65534 mount "$scratch/home/user"
[ "$(findmnt -n -o OPTIONS "$scratch/home/user" | grep -o 'user_id=[0-9]*')" = user_id=65534 ]
[ "$(as 65534 head -c 4 "$scratch/home/user/versions/r1/values" | od -An -td4 | tr -d ' ')" = 0 ]
as 65534 bash -c "printf '\\007\\0\\0\\0' | dd of='$scratch/home/user/staging/values' conv=notrunc status=none && echo r2 >'$scratch/home/user/staging/.commit'"
[ "$(as 65534 head -c 4 "$scratch/home/user/versions/r2/values" | od -An -td4 | tr -d ' ')" = 7 ]
fails as 65533 umount "$scratch/home/user" 2>/dev/null
fails as 65533 ls "$scratch/home/user" 2>/dev/null
as 65534 umount "$scratch/home/user"
fails mountpoint -q "$scratch/home/user"
fails as 65534 mount "$scratch/automount" 2>/dev/null

umount "$scratch/plain"
# A mistake is told by its name.
# In place: what is bound is the file, not its name.
lines=$(<"$scratch/fstab")
echo "${lines/cache_size=64M/cache_sise=64M}" >"$scratch/fstab"
fails mount "$scratch/plain" 2>"$scratch/words"
grep -q 'unknown mount option `cache_sise=64M`' "$scratch/words"
mount -s "$scratch/plain"
umount "$scratch/plain"

# What systemd makes of the lines at boot.
echo "$lines" >"$scratch/fstab"
mkdir "$scratch/units" "$scratch/early" "$scratch/late"
SYSTEMD_FSTAB=$scratch/fstab /usr/lib/systemd/system-generators/systemd-fstab-generator "$scratch/units" "$scratch/early" "$scratch/late" 2>"$scratch/words" ||
    { cat "$scratch/words" >&2; exit 1; }
unit=$(systemd-escape --path "$scratch/automount")
test -e "$scratch/units/$unit.automount"
grep -qx 'Type=fuse.vh5fs' "$scratch/units/$unit.mount"
systemd-analyze verify --man=no "$scratch/units/$unit.automount" "$scratch/units/$unit.mount" 2>"$scratch/words" ||
    { cat "$scratch/words" >&2; exit 1; }
[ ! -s "$scratch/words" ] || { cat "$scratch/words" >&2; exit 1; }
