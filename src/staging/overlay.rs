//! The edited bytes of one dataset, over the bytes that it has in the base version.
//!
//! Two files in the sidecar: `N.data`, sparse, with the bytes at their final offsets, and as long as the staged dataset is; and
//! `N.blocks`, which says block by block of [`BLOCK_BYTES`] whether the bytes in `N.data` are the dataset's. A block that is
//! not, is as in the base up to the *base limit*, and zeros from there on. The limit is the lowest length that the dataset ever had
//! since it was edited.
//!
//! # When the process ends
//!
//! Each change is made in such an order that the dataset has its old bytes or its new ones if the process ends in between: bytes are
//! written before their bit is set, and what lies in a block without its bit is never read. A file of which only the length was
//! lowered when the process ended has a limit above its length; it is lowered when the overlay is opened. Both files are there, and `N.blocks` has its
//! beginning, before the log speaks of them.
//!
//! # When the machine goes down
//!
//! What was not synced reaches the disk in any order, or not at all: a bit may be there whose block is not. So each block has a second bit, which says that
//! the block was durable once. A sync writes the data, then these bits, then the file that they are in. After another start of the machine
//! ([`boot`](super::boot)) a block counts
//!
//! - if its second bit is set: it holds what was synced, or what was written over that later. This includes zeros that are a hole in `N.data`;
//! - else if `N.data` has data there and no hole: file systems show what was written, or a hole, for a block that was not written before;
//! - else not: it is then as in the base again, as if it had not been written. Whoever takes the overlay up is told how many those are.
//!
//! Blocks whose first bit did not reach the disk either, or that lie behind a length that did not, are not counted: nothing is left that tells of them.
//!
//! An overlay that was never synced may be *unborn*: one of the files is missing, or `N.blocks` has nothing in it, or `N.data` is empty, and nobody knows
//! whether it was. What becomes of those, the log decides ([`state`](super::state)).
//!
//! The bytes have no checksums: a disk that gives back other ones than were written is not noticed here, as it is not for any file that is only written
//! once. What the log and the heads of these files say is checked.
//!
//! # When syncing fails
//!
//! The kernel then forgets which bytes it could not write, so that they read as before as soon as memory gets short, and the next sync succeeds without
//! them. So an overlay of which one sync failed fails at every further one, and no version is made of it. A commit itself syncs no
//! overlay: it reads what was written, and what it makes durable is the version. Not noticed by it is what nobody asked the kernel about before it began:
//! bytes that could not be written in the background, or by a sync while it runs. That a sync failed is known as long as the mount lasts.
//!
//! # Layout
//!
//! `N.blocks` begins with eight bytes that name it, the base limit, and 1 if it was ever synced (64-bit little-endian each). From byte 4096 on there are
//! pages of 4096 bytes in pairs: bits of blocks that are staged, and of the same blocks that were durable.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::block_set::{BlockSet, PAGE_BYTES};
use super::open_files::{OverlayFile, Part};
use super::sidecar::Sidecar;
use super::{Allocate, StagingError};
use crate::store::StoreError;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// What `N.blocks` begins with.
const MAGIC: [u8; 8] = *b"vh5fsbl2";
/// That, the base limit, and whether it was synced.
const HEAD_BYTES: usize = 24;
const SYNCED_OFFSET: u64 = 16;
/// Where its bits begin.
const BITS_OFFSET: u64 = 4096;
/// The longest file.
const MAX_LEN_BYTES: u64 = i64::MAX as u64;
/// Zeros are written in pieces of this length where the file system cannot punch holes.
const ZEROS_BYTES: u64 = 1 << 20;

/// The bytes under an overlay.
pub(super) trait BaseBytes {
    /// Fills `buffer` from `offset` on; all of it lies below the base limit.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError>;

    /// The first byte at `offset` or behind it that is data, or in a hole; `None` where there is none.
    fn seek(&self, offset: u64, for_hole: bool) -> Result<Option<u64>, StoreError>;
}

/// No bytes at all.
#[derive(Debug)]
pub(super) struct NoBase;

impl BaseBytes for NoBase {
    fn read_exact_at(&self, _offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        // Nothing lies below a limit of 0.
        buffer.fill(0);
        Ok(())
    }

    fn seek(&self, _offset: u64, _for_hole: bool) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

/// The staged bytes of a dataset.
#[derive(Debug)]
pub(super) struct Overlay {
    sidecar: Arc<Sidecar>,
    number: u64,
    data: OverlayFile,
    blocks: OverlayFile,
    set: BlockSet,
    /// Those of `set` that were not durable yet. Changed with the overlay locked for writing, or by a sync.
    fresh: Mutex<BlockSet>,
    /// Why a sync failed.
    failure: OnceLock<Arc<io::Error>>,
    base_limit: u64,
    len_bytes: u64,
    modified: SystemTime,
    removal: Removal,
}

/// What may be missing in the files of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing: at most the process ended.
    SameBoot,
    /// What was not synced: the machine was started anew.
    OtherBoot,
}

impl Drop for Overlay {
    fn drop(&mut self) {
        match self.removal {
            Removal::Never => {}
            Removal::Now => {
                for name in [data_name(self.number), blocks_name(self.number)] {
                    if let Err(error) = self.sidecar.remove(&name) {
                        // Removed at the next mount, since nothing speaks of it.
                        log::warn!("{error}");
                    }
                }
            }
            Removal::OnceLogged => self.sidecar.remove_once_logged(self.number),
        }
    }
}

/// What is kept of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    Staged,
    Durable,
}

/// What becomes of the files when an overlay is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    Never,
    /// Nothing speaks of them.
    Now,
    /// The log spoke of them: they go once it is durable that the dataset is gone.
    OnceLogged,
}

pub(super) fn data_name(number: u64) -> String {
    Part::Data.name(number)
}

pub(super) fn blocks_name(number: u64) -> String {
    Part::Blocks.name(number)
}

/// The number of the overlay that a file belongs to.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".data")
        .or_else(|| name.strip_suffix(".blocks"))?
        .parse()
        .ok()
}

/// The three numbers that `N.blocks` begins with.
fn fields(head: &[u8; HEAD_BYTES]) -> [u64; 3] {
    let (numbers, _) = head.as_chunks();
    std::array::from_fn(|at| u64::from_le_bytes(numbers[at]))
}

impl Overlay {
    /// A new overlay over `len_bytes` of a base.
    ///
    /// # Errors
    /// What the operating system says; nothing is left behind then.
    pub(super) fn create(
        sidecar: &Arc<Sidecar>,
        number: u64,
        len_bytes: u64,
    ) -> Result<Self, StagingError> {
        let data = OverlayFile::create(sidecar, number, Part::Data)?;
        let blocks = match OverlayFile::create(sidecar, number, Part::Blocks) {
            Ok(blocks) => blocks,
            Err(error) => {
                sidecar.remove(&data_name(number))?;
                return Err(error);
            }
        };
        let overlay = Self {
            sidecar: sidecar.clone(),
            number,
            data,
            blocks,
            set: BlockSet::default(),
            fresh: Mutex::default(),
            failure: OnceLock::new(),
            base_limit: len_bytes,
            len_bytes,
            modified: SystemTime::now(),
            removal: Removal::Now,
        };
        // Dropped on failure, which removes both.
        overlay.check_len(len_bytes)?;
        let head = [MAGIC, len_bytes.to_le_bytes(), [0; 8]].concat();
        overlay.blocks_done(overlay.blocks.get()?.write_all_at(&head, 0))?;
        overlay.set_len_bytes(len_bytes)?;
        let mut overlay = overlay;
        overlay.removal = Removal::Never;
        Ok(overlay)
    }

    /// Whether the overlay never became durable: whoever logged it did not sync it.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn is_unborn(sidecar: &Arc<Sidecar>, number: u64) -> Result<bool, StagingError> {
        let name = blocks_name(number);
        if !sidecar.has(&data_name(number))? || !sidecar.has(&name)? {
            return Ok(true);
        }
        let mut head = [0; HEAD_BYTES];
        match sidecar.open(&name)?.read_exact_at(&mut head, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
            Err(error) => return Err(sidecar.failed(&name, error)),
        }
        if head == [0; HEAD_BYTES] {
            return Ok(true);
        }
        let [_, _, synced] = fields(&head);
        let data = sidecar.open(&data_name(number))?.metadata();
        let data = data.map_err(|error| sidecar.failed(&data_name(number), error))?;
        Ok(synced == 0 && data.len() == 0)
    }

    /// The overlay that an earlier mount left, and how many of its blocks were lost since.
    ///
    /// # Errors
    /// What the operating system says; [`StagingError::SidecarDamaged`] where the files are not those of an overlay.
    pub(super) fn open(
        sidecar: &Arc<Sidecar>,
        number: u64,
        since: Since,
    ) -> Result<(Self, u64), StagingError> {
        for name in [data_name(number), blocks_name(number)] {
            if !sidecar.has(&name)? {
                return Err(StagingError::SidecarDamaged {
                    path: sidecar.path().join(name),
                    what: "it is missing",
                });
            }
        }
        let data = OverlayFile::of(sidecar, number, Part::Data);
        let blocks = OverlayFile::of(sidecar, number, Part::Blocks);
        let metadata = data
            .get()?
            .metadata()
            .map_err(|error| sidecar.failed(&data_name(number), error))?;
        let mut overlay = Self {
            sidecar: sidecar.clone(),
            number,
            data,
            blocks,
            set: BlockSet::default(),
            fresh: Mutex::default(),
            failure: OnceLock::new(),
            base_limit: 0,
            len_bytes: metadata.len(),
            modified: metadata
                .modified()
                .map_err(|error| sidecar.failed(&data_name(number), error))?,
            removal: Removal::Never,
        };
        overlay.load_blocks()?;
        let lost = match since {
            Since::SameBoot => 0,
            Since::OtherBoot => overlay.drop_lost()?,
        };
        Ok((overlay, lost))
    }

    fn load_blocks(&mut self) -> Result<(), StagingError> {
        let mut head = [0; HEAD_BYTES];
        let blocks = self.blocks.get()?;
        let damaged = || StagingError::SidecarDamaged {
            path: self.sidecar.path().join(blocks_name(self.number)),
            what: "it does not say which bytes are staged",
        };
        match blocks.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
            read => self.blocks_done(read)?,
        }
        let [_, limit, synced] = fields(&head);
        if head[..MAGIC.len()] != MAGIC || limit > MAX_LEN_BYTES || synced > 1 {
            return Err(damaged());
        }
        self.base_limit = limit;
        let len_bytes = self
            .blocks_done(blocks.metadata())?
            .len()
            .saturating_sub(BITS_OFFSET);
        let mut durable = BlockSet::default();
        let mut at = 0;
        // Holes are skipped: a file with one byte far out has a long, empty map.
        while let Some(data) = self.next_bits(at, len_bytes)? {
            let page = data / PAGE_BYTES as u64;
            let start = page * PAGE_BYTES as u64;
            // No byte of a file has such a number.
            if page / 2 > MAX_LEN_BYTES / BLOCK_BYTES / (8 * PAGE_BYTES as u64) {
                break;
            }
            let mut bytes = [0; PAGE_BYTES];
            let count = usize::try_from((len_bytes - start).min(PAGE_BYTES as u64))
                .expect("at most a page");
            let read = blocks.read_exact_at(&mut bytes[..count], BITS_OFFSET + start);
            self.blocks_done(read)?;
            if page.is_multiple_of(2) {
                self.set.load_page(page / 2, &bytes);
            } else {
                durable.load_page(page / 2, &bytes);
            }
            at = start + PAGE_BYTES as u64;
        }
        self.set
            .remove(self.len_bytes.div_ceil(BLOCK_BYTES)..u64::MAX);
        let mut fresh = self.set.clone();
        fresh.subtract(&durable);
        self.fresh = Mutex::new(fresh);
        if self.base_limit > self.len_bytes {
            self.store_limit(self.len_bytes)?;
            self.base_limit = self.len_bytes;
        }
        Ok(())
    }

    /// Takes those blocks for not staged that were never durable and are in no extent of `N.data`. Gives their number.
    fn drop_lost(&mut self) -> Result<u64, StagingError> {
        let mut lost_blocks = 0;
        let mut block = 0;
        loop {
            let fresh = self.fresh();
            let Some(start) = fresh.next_in(block) else {
                return Ok(lost_blocks);
            };
            let end = fresh.next_out(start);
            drop(fresh);
            let data = self.next_data(start.saturating_mul(BLOCK_BYTES))?;
            // Half a block is a block, for the smaller ones that a file system may have.
            let first = data.map_or(end, |data| (data / BLOCK_BYTES).clamp(start, end));
            if first > start {
                lost_blocks += first - start;
                self.unmark(start..first)?;
                block = first;
                continue;
            }
            let hole = self.next_hole(start.saturating_mul(BLOCK_BYTES))?;
            block = hole.map_or(end, |hole| hole.div_ceil(BLOCK_BYTES).clamp(start + 1, end));
        }
    }

    /// The first byte of `N.data` at `at` or behind it that is not in a hole; `None` where there is none.
    fn next_data(&self, at: u64) -> Result<Option<u64>, StagingError> {
        self.seek_data(rustix::fs::SeekFrom::Data(at), at)
    }

    /// The first byte of `N.data` at `at` or behind it that is in a hole; `None` where there is none.
    fn next_hole(&self, at: u64) -> Result<Option<u64>, StagingError> {
        let end = self.len_bytes;
        self.seek_data(rustix::fs::SeekFrom::Hole(at), end)
    }

    /// `unknown` is what is answered where the file system does not tell.
    fn seek_data(
        &self,
        to: rustix::fs::SeekFrom,
        unknown: u64,
    ) -> Result<Option<u64>, StagingError> {
        match rustix::fs::seek(&*self.data.get()?, to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(unknown)),
            Err(error) => Err(self.sidecar.failed(&data_name(self.number), error)),
        }
    }

    /// The first byte of bits at `at` or behind it that is not in a hole.
    fn next_bits(&self, at: u64, len_bytes: u64) -> Result<Option<u64>, StagingError> {
        if at >= len_bytes {
            return Ok(None);
        }
        match rustix::fs::seek(
            self.blocks.get()?,
            rustix::fs::SeekFrom::Data(BITS_OFFSET + at),
        ) {
            Ok(found) => Ok(Some((found.max(BITS_OFFSET + at)) - BITS_OFFSET)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
            Err(error) => Err(self.sidecar.failed(&blocks_name(self.number), error)),
        }
    }

    /// Its number, by which the log knows it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Removes its files once it was dropped and the log is durable. Until then it can do without their names, which may go with the sidecar.
    pub(super) fn discard(&mut self) {
        self.removal = Removal::OnceLogged;
        for file in [&mut self.data, &mut self.blocks] {
            if let Err(error) = file.pin() {
                // Whoever has it open is told when he reads.
                log::warn!("{error}");
            }
        }
    }

    /// Length of the staged dataset.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Bytes of the base from here on are not seen any more.
    pub(super) fn base_limit(&self) -> u64 {
        self.base_limit
    }

    /// When it was last changed.
    pub(super) fn modified(&self) -> SystemTime {
        self.modified
    }

    /// Bytes that it takes in the sidecar.
    pub(super) fn stored_bytes(&self) -> Result<u64, StagingError> {
        Ok(self
            .data_done(self.data.get()?.metadata())?
            .blocks()
            .saturating_mul(512))
    }

    /// Fills `buffer` from `offset` on as far as the dataset goes, and says how many bytes there were.
    ///
    /// # Errors
    /// What is wrong with the base or with the overlay.
    pub(super) fn read_at(
        &self,
        base: &dyn BaseBytes,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        let left = usize::try_from(self.len_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        let mut rest = &mut buffer[..count];
        let mut at = offset;
        while !rest.is_empty() {
            let block = at / BLOCK_BYTES;
            let is_set = self.set.contains(block);
            let end = if is_set {
                Some(self.set.next_out(block))
            } else {
                self.set.next_in(block)
            };
            let run = end.map_or(u64::MAX, |end| end.saturating_mul(BLOCK_BYTES) - at);
            let run = usize::try_from(run).unwrap_or(usize::MAX).min(rest.len());
            let (piece, behind) = rest.split_at_mut(run);
            if is_set {
                self.data_done(self.data.get()?.read_exact_at(piece, at))?;
            } else {
                self.read_clean(base, at, piece)?;
            }
            at += run as u64;
            rest = behind;
        }
        Ok(count)
    }

    /// What `buffer` holds in blocks that are not staged.
    fn read_clean(
        &self,
        base: &dyn BaseBytes,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), StagingError> {
        let of_base = usize::try_from(self.base_limit.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (of_base, zeros) = buffer.split_at_mut(of_base);
        if !of_base.is_empty() {
            base.read_exact_at(offset, of_base)?;
        }
        zeros.fill(0);
        Ok(())
    }

    /// Writes `bytes` at `offset`, and says how many: fewer than all where room ended in between.
    ///
    /// # Errors
    /// What is wrong with the base or with the overlay. Blocks that were not staged before read as before.
    pub(super) fn write_at(
        &mut self,
        base: &dyn BaseBytes,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(StagingError::TooLong)?;
        self.check_len(end)?;
        let head = self.clean_part(base, offset - offset % BLOCK_BYTES..offset)?;
        let tail_end = end
            .div_ceil(BLOCK_BYTES)
            .saturating_mul(BLOCK_BYTES)
            .min(self.len_bytes.max(end));
        let tail = self.clean_part(base, end..tail_end)?;
        let start = offset - head.len() as u64;
        let old_len_bytes = self.len_bytes;
        let (written, error) = write_all_vectored(&*self.data.get()?, [&head, bytes, &tail], start);
        let accepted_end = if error.is_none() {
            end
        } else {
            let written_end = start + written;
            let block = written_end / BLOCK_BYTES;
            // In a block that was not staged, only all of it counts.
            let counted = if self.set.contains(block) {
                written_end
            } else {
                block * BLOCK_BYTES
            };
            counted.min(end)
        };
        if let Some(error) = error
            && accepted_end <= offset
        {
            self.set_len_bytes(old_len_bytes)?;
            return Err(self.sidecar.failed(&data_name(self.number), error));
        }
        let staged = self.mark(start / BLOCK_BYTES..accepted_end.div_ceil(BLOCK_BYTES));
        if let Err(error) = staged {
            self.set_len_bytes(old_len_bytes)?;
            return Err(error);
        }
        self.len_bytes = old_len_bytes.max(accepted_end);
        if accepted_end < end {
            self.set_len_bytes(self.len_bytes)?;
        }
        self.modified = SystemTime::now();
        Ok(usize::try_from(accepted_end - offset).expect("no more than was given"))
    }

    /// The bytes of a part of one block that has to be staged along; none if it is staged already.
    fn clean_part(&self, base: &dyn BaseBytes, range: Range<u64>) -> Result<Vec<u8>, StagingError> {
        if range.is_empty() || self.set.contains(range.start / BLOCK_BYTES) {
            return Ok(Vec::new());
        }
        let len = usize::try_from(range.end - range.start).expect("less than a block");
        let mut part = vec![0; len];
        self.read_clean(base, range.start, &mut part)?;
        Ok(part)
    }

    /// Sets the length.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn truncate(&mut self, len_bytes: u64) -> Result<(), StagingError> {
        self.check_len(len_bytes)?;
        self.set_len_bytes(len_bytes)?;
        let shrinks = len_bytes < self.len_bytes;
        self.len_bytes = len_bytes;
        self.modified = SystemTime::now();
        if shrinks {
            if self.base_limit > len_bytes {
                // In memory first: the length is lower already.
                self.base_limit = len_bytes;
                self.store_limit(len_bytes)?;
            }
            self.unmark(len_bytes.div_ceil(BLOCK_BYTES)..u64::MAX)?;
        }
        Ok(())
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// Those of [`Overlay::reserve`] and [`Overlay::punch`].
    pub(super) fn allocate(
        &mut self,
        base: &dyn BaseBytes,
        mode: Allocate,
        range: &Range<u64>,
    ) -> Result<(), StagingError> {
        match mode {
            Allocate::Extend => self.reserve(range, false),
            Allocate::Reserve => self.reserve(range, true),
            Allocate::PunchHole => self.punch(base, range),
            Allocate::ZeroRange { keep_size } => {
                self.punch(base, range)?;
                if !keep_size && range.end > self.len_bytes {
                    self.truncate(range.end)?;
                }
                Ok(())
            }
        }
    }

    /// Reserves room for a range, and makes the dataset long enough for it unless `keep_size`.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn reserve(
        &mut self,
        range: &Range<u64>,
        keep_size: bool,
    ) -> Result<(), StagingError> {
        self.check_len(range.end)?;
        let flags = if keep_size {
            FallocateFlags::KEEP_SIZE
        } else {
            FallocateFlags::empty()
        };
        let data = self.data.get()?;
        let done = rustix::fs::fallocate(&*data, flags, range.start, range.end - range.start);
        match done {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) if keep_size => {}
            Err(Errno::OPNOTSUPP) if range.end <= self.len_bytes => {}
            Err(Errno::OPNOTSUPP) => self.set_len_bytes(range.end)?,
            Err(error) => {
                self.set_len_bytes(self.len_bytes)?;
                return Err(self.sidecar.failed(&data_name(self.number), error));
            }
        }
        if !keep_size && range.end > self.len_bytes {
            self.len_bytes = range.end;
            self.modified = SystemTime::now();
        }
        Ok(())
    }

    /// Makes a range zeros, as far as the dataset goes. Whole blocks behind the base limit are as if they were never written.
    ///
    /// # Errors
    /// As for [`Overlay::write_at`]; a part of the range may be zeros then.
    pub(super) fn punch(
        &mut self,
        base: &dyn BaseBytes,
        range: &Range<u64>,
    ) -> Result<(), StagingError> {
        let end = range.end.min(self.len_bytes);
        if range.start >= end {
            return Ok(());
        }
        let first = range.start.div_ceil(BLOCK_BYTES);
        // The end of the file is the end of its last block.
        let last = if end == self.len_bytes {
            end.div_ceil(BLOCK_BYTES)
        } else {
            end / BLOCK_BYTES
        };
        if first >= last {
            return self.write_zeros(base, range.start..end);
        }
        self.write_zeros(base, range.start..first * BLOCK_BYTES)?;
        if last * BLOCK_BYTES < end {
            self.write_zeros(base, last * BLOCK_BYTES..end)?;
        }
        let seen = self.base_limit.div_ceil(BLOCK_BYTES).clamp(first, last);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (start, len_bytes) = (first * BLOCK_BYTES, (last - first) * BLOCK_BYTES);
        match rustix::fs::fallocate(&*self.data.get()?, flags, start, len_bytes) {
            Ok(()) => self.mark(first..seen)?,
            Err(Errno::OPNOTSUPP) => {
                self.write_zeros(base, start..(seen * BLOCK_BYTES).min(self.len_bytes))?;
            }
            Err(error) => return Err(self.sidecar.failed(&data_name(self.number), error)),
        }
        self.unmark(seen..last)?;
        self.modified = SystemTime::now();
        Ok(())
    }

    fn write_zeros(&mut self, base: &dyn BaseBytes, range: Range<u64>) -> Result<(), StagingError> {
        if range.is_empty() {
            return Ok(());
        }
        let piece = (range.end - range.start).min(ZEROS_BYTES);
        let zeros = vec![0; usize::try_from(piece).expect("a megabyte")];
        let mut at = range.start;
        while at < range.end {
            let count = usize::try_from((range.end - at).min(piece)).expect("a megabyte");
            at += self.write_at(base, at, &zeros[..count])? as u64;
        }
        Ok(())
    }

    /// The first byte at `offset` or behind it that is data, or in a hole; there is a hole at the end.
    ///
    /// # Errors
    /// [`StagingError::NoSuchOffset`], or what is wrong with the base.
    pub(super) fn seek(
        &self,
        base: &dyn BaseBytes,
        offset: u64,
        for_hole: bool,
    ) -> Result<u64, StagingError> {
        if offset >= self.len_bytes {
            return Err(StagingError::NoSuchOffset);
        }
        let mut at = offset;
        while at < self.len_bytes {
            let block = at / BLOCK_BYTES;
            let next = if self.set.contains(block) {
                if !for_hole {
                    return Ok(at);
                }
                self.set.next_out(block).saturating_mul(BLOCK_BYTES)
            } else {
                let end = self
                    .set
                    .next_in(block)
                    .map_or(u64::MAX, |block| block.saturating_mul(BLOCK_BYTES));
                let limit = self.base_limit.min(end);
                if at < limit
                    && let Some(found) = base.seek(at, for_hole)?
                    && found < limit
                {
                    return Ok(found);
                }
                if for_hole && self.base_limit < end {
                    return Ok(at.max(self.base_limit).min(self.len_bytes));
                }
                end
            };
            at = next;
        }
        if for_hole {
            Ok(self.len_bytes)
        } else {
            Err(StagingError::NoSuchOffset)
        }
    }

    /// The first range of staged blocks at `offset` or behind it, cut to the length.
    pub(super) fn next_staged(&self, offset: u64) -> Option<Range<u64>> {
        let first = self.set.next_in(offset / BLOCK_BYTES)?;
        let start = first.saturating_mul(BLOCK_BYTES).max(offset);
        let end = self
            .set
            .next_out(first)
            .saturating_mul(BLOCK_BYTES)
            .min(self.len_bytes);
        (start < end).then_some(start..end)
    }

    /// Makes everything durable, short of the files' names.
    ///
    /// # Errors
    /// What the operating system says; of a sync before this one too.
    pub(super) fn sync(&self) -> Result<(), StagingError> {
        self.check_synced()?;
        self.sync_files()?;
        // Of two at the same time, the system tells only one that bytes were lost.
        self.check_synced()
    }

    /// Notes for good that the system could not write what it was given before. Any other failure of a sync can be mended, and the next one does all again.
    fn noted(&self, synced: io::Result<()>) -> Result<(), StagingError> {
        synced.or_else(|error| {
            // The first one counts.
            let _ = self.failure.set(Arc::new(error));
            self.check_synced()
        })
    }

    /// # Errors
    /// What made a sync fail, if one did: what is read may then not be what was written.
    pub(super) fn check_synced(&self) -> Result<(), StagingError> {
        match self.failure.get() {
            None => Ok(()),
            Some(error) => Err(StagingError::Sidecar {
                path: self.sidecar.path().join(data_name(self.number)),
                error: error.clone(),
            }),
        }
    }

    fn sync_files(&self) -> Result<(), StagingError> {
        self.noted(self.data.get()?.sync_data())?;
        {
            let mut fresh = self.fresh();
            let durable = std::mem::take(&mut *fresh);
            let mut block = 0;
            while let Some(start) = durable.next_in(block) {
                block = durable.next_out(start);
                let stored = self.store_bits(&(start..block), Bits::Durable, &fresh);
                if let Err(error) = stored {
                    *fresh = durable;
                    return Err(error);
                }
            }
        }
        let blocks = self.blocks.get()?;
        self.blocks_done(blocks.write_all_at(&1u64.to_le_bytes(), SYNCED_OFFSET))?;
        self.noted(blocks.sync_data())
    }

    fn fresh(&self) -> MutexGuard<'_, BlockSet> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_mut(&mut self) -> &mut BlockSet {
        self.fresh.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that `blocks` are staged.
    fn mark(&mut self, blocks: Range<u64>) -> Result<(), StagingError> {
        if self.set.next_out(blocks.start) >= blocks.end {
            return Ok(());
        }
        let mut added = BlockSet::default();
        added.insert(blocks.clone());
        added.subtract(&self.set);
        let Some(changed) = self.set.insert(blocks) else {
            return Ok(());
        };
        if let Err(error) = self.store_bits(&changed, Bits::Staged, &BlockSet::default()) {
            self.set.subtract(&added);
            return Err(error);
        }
        self.fresh_mut().unite(&added);
        Ok(())
    }

    /// Says that `blocks` are not staged.
    fn unmark(&mut self, blocks: Range<u64>) -> Result<(), StagingError> {
        self.fresh_mut().remove(blocks.clone());
        let Some(changed) = self.set.remove(blocks) else {
            return Ok(());
        };
        self.store_bits(&changed, Bits::Staged, &BlockSet::default())?;
        self.store_bits(&changed, Bits::Durable, &self.fresh())
    }

    /// Writes what `bits` are of `blocks`; of those that are `fresh`, none is durable.
    fn store_bits(
        &self,
        blocks: &Range<u64>,
        bits: Bits,
        fresh: &BlockSet,
    ) -> Result<(), StagingError> {
        let (first, mut bytes) = self.set.bytes_of(blocks);
        let page = match bits {
            Bits::Staged => 0,
            Bits::Durable => {
                for (byte, fresh) in bytes.iter_mut().zip(fresh.bytes_of(blocks).1) {
                    *byte &= !fresh;
                }
                1
            }
        };
        let file = self.blocks.get()?;
        let mut rest = &bytes[..];
        let mut at = first;
        while !rest.is_empty() {
            let (number, within) = (at / PAGE_BYTES as u64, at % PAGE_BYTES as u64);
            let left = usize::try_from(PAGE_BYTES as u64 - within).expect("at most a page");
            let (piece, behind) = rest.split_at(left.min(rest.len()));
            let offset = BITS_OFFSET + (2 * number + page) * PAGE_BYTES as u64 + within;
            self.blocks_done(file.write_all_at(piece, offset))?;
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    fn store_limit(&self, limit: u64) -> Result<(), StagingError> {
        self.blocks_done(self.blocks.get()?.write_all_at(&limit.to_le_bytes(), 8))
    }

    /// Sets the length of `N.data`.
    fn set_len_bytes(&self, len_bytes: u64) -> Result<(), StagingError> {
        self.data_done(self.data.get()?.set_len(len_bytes))
    }

    fn check_len(&self, len_bytes: u64) -> Result<(), StagingError> {
        if len_bytes > MAX_LEN_BYTES {
            return Err(StagingError::TooLong);
        }
        debug_assert!(self.base_limit <= MAX_LEN_BYTES);
        Ok(())
    }

    fn data_done<T>(&self, done: io::Result<T>) -> Result<T, StagingError> {
        done.map_err(|error| self.sidecar.failed(&data_name(self.number), error))
    }

    fn blocks_done<T>(&self, done: io::Result<T>) -> Result<T, StagingError> {
        done.map_err(|error| self.sidecar.failed(&blocks_name(self.number), error))
    }
}

/// Writes all pieces, one behind the other; says how many bytes, and what kept it from being all.
fn write_all_vectored(file: &File, pieces: [&[u8]; 3], offset: u64) -> (u64, Option<io::Error>) {
    let mut slices = pieces.map(IoSlice::new);
    let mut slices = &mut slices[..];
    let mut written = 0;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, offset + written) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                written += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return (written, Some(error.into())),
        }
    }
    (written, None)
}

#[cfg(test)]
mod tests;
