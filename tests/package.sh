#!/usr/bin/env bash
# What scripts/test_package.sh runs in the clean root. /test holds the package, a file and what one of its datasets contains.
set -euo pipefail

FAILED='printf "failed in line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2'
trap "$FAILED" ERR

# Everything in the root, but for what apt, man and mount keep for themselves.
everything() {
    find / -xdev \( -path /proc -o -path /dev -o -path /test -o -path /var/cache -o -path /var/log -o -path '/var/lib/apt' -o -path '/var/lib/dpkg/*-old' -o -path /run/mount \) -prune -o -print | LC_ALL=C sort
}
install() { apt-get install -q -y --no-install-recommends "$@" >/test/apt.log 2>&1 || { cat /test/apt.log; return 1; }; }
# has FILE TEXT: TEXT is a line of FILE, or a part of one.
has() { grep -qF -- "$2" "$1" || { printf 'no "%s" in:\n' "$2" >&2; cat "$1" >&2; return 1; }; }
equal() { [ "$1" = "$2" ] || { printf '"%s" instead of "%s"\n' "$1" "$2" >&2; return 1; }; }

# The shell does not end where `! COMMAND` succeeds.
fails() { if "$@"; then return 1; fi; }

everything >/test/before
install /test/vh5fs.deb

# What the package brings.
dpkg --verify vh5fs
vh5fs --version
man vh5fs-mount >/test/page
has /test/page "--read-only"
man 8 mount.fuse.vh5fs >/test/page
has /test/page "--read-only"
for page in $(vh5fs help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -vx help); do
    man -w "vh5fs-$page" >/dev/null
done
bash -ic '
    source /usr/share/bash-completion/bash_completion
    _completion_loader vh5fs
    COMP_WORDS=(vh5fs ver) COMP_CWORD=1
    "$(complete -p vh5fs | sed "s/.*-F \([^ ]*\).*/\1/")" vh5fs ver vh5fs
    echo "${COMPREPLY[*]}"
' 2>/dev/null >/test/completed
has /test/completed verify
has /usr/share/zsh/vendor-completions/_vh5fs "#compdef vh5fs"
has /usr/share/fish/vendor_completions.d/vh5fs.fish "complete -c vh5fs"
has /usr/lib/systemd/system/vh5fs@.service "Type=notify"
has /usr/share/doc/vh5fs/copyright "Expat or Apache-2.0"
zcat /usr/share/doc/vh5fs/licenses.gz >/test/licenses
has /test/licenses "Copyright 2006 by The HDF Group."
test -s /usr/share/doc/vh5fs/docs/format.md

# Used by root, who needs no other package.
fails test -e /usr/bin/fusermount3
mkdir /data /mnt/h5
cp /test/climate.h5 /data/
vh5fs mount /data/climate.h5 /mnt/h5
cmp /mnt/h5/versions/whole-year/grid/temperature /test/temperature
sed -i 's/Oslo/Bergen/' /mnt/h5/staging/stations
vh5fs commit /mnt/h5 moved
equal "$(readlink /mnt/h5/current)" versions/moved
vh5fs umount /mnt/h5
vh5fs verify /data/climate.h5 >/dev/null

# By mount(8), with the helper of the package.
mount -t fuse.vh5fs -o ro,threads=1 /data/climate.h5 /mnt/h5
cmp /mnt/h5/versions/whole-year/grid/temperature /test/temperature
equal "$(head -n 1 /mnt/h5/current/stations)" Bergen
fails test -e /mnt/h5/staging
umount /mnt/h5
mount -f -t fuse.vh5fs -o ro /data/climate.h5 /mnt/h5
fails mountpoint -q /mnt/h5
fails mount -t fuse.vh5fs -o ro,colour=red /data/climate.h5 /mnt/h5 2>/test/refused
has /test/refused "unknown mount option"
mount -s -t fuse.vh5fs -o ro,colour=red /data/climate.h5 /mnt/h5
umount /mnt/h5
cat >>/etc/fstab <<'FSTAB'
/data/climate.h5 /mnt/h5 fuse.vh5fs ro,allow_other,nofail,x-systemd.automount,x-systemd.idle-timeout=60 0 0
FSTAB
mount -a
cmp /mnt/h5/versions/whole-year/grid/temperature /test/temperature
umount /mnt/h5

# Nothing is left.
rm -r /data /mnt/h5
: >/etc/fstab
dpkg --purge vh5fs >/dev/null
everything | diff /test/before - || { echo "left behind" >&2; false; }
fails grep -x "Package: vh5fs" /var/lib/dpkg/status

# An ordinary user mounts what fstab lets him.
install fuse3
install /test/vh5fs.deb
useradd --create-home anna
cp /test/climate.h5 /home/anna/
chown -R anna /home/anna
echo "/home/anna/climate.h5 /home/anna/tree fuse.vh5fs noauto,user 0 0" >>/etc/fstab
cat >/test/anna.sh <<'ANNA'
set -eu
mkdir tree
mount ~/tree
cmp tree/versions/whole-year/grid/temperature /test/temperature
echo Bergen >tree/staging/stations
echo mine >tree/staging/.commit
test "$(cat tree/current/stations)" = Bergen
mountpoint -q ~/tree
umount ~/tree
ANNA
su anna -c 'cd && sh /test/anna.sh'
fails mountpoint -q /home/anna/tree
apt-get purge -q -y vh5fs >/dev/null
fails test -e /usr/bin/vh5fs
