//! A file system in memory that notes every write, length, name and sync, so that no program that works on it can keep one from the test; and
//! what a disk may hold if the machine went down after any of them.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::common::{MountPoint, Random};

const ROOT: u64 = 1;
/// Recorders of this process so far.
static NEXT: AtomicU64 = AtomicU64::new(1);
/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: u64 = 512;
const TTL: Duration = Duration::ZERO;

/// Something that a program did. Numbers are those of inodes.
#[derive(Debug, Clone)]
pub enum Op {
    Write {
        file: u64,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        file: u64,
        len: u64,
    },
    /// A name that appears, in place of any that is there.
    Link {
        folder: u64,
        name: OsString,
        node: u64,
    },
    Unlink {
        folder: u64,
        name: OsString,
    },
    /// One name in place of another.
    Rename {
        folder: u64,
        from: OsString,
        to: OsString,
    },
    /// `fsync` or `fdatasync`, of a file or a folder.
    Sync {
        node: u64,
    },
}

#[derive(Debug, Clone)]
enum Content {
    Folder(BTreeMap<OsString, u64>),
    File(Vec<u8>),
}

#[derive(Debug, Clone)]
struct Node {
    content: Content,
    mode: u16,
    changed: SystemTime,
}

/// What a disk holds, or what programs see.
#[derive(Debug, Clone)]
struct Image {
    nodes: HashMap<u64, Node>,
    next: u64,
}

#[derive(Debug)]
struct State {
    now: Image,
    ops: Vec<Op>,
    fault: Option<Fault>,
    failures: usize,
    /// With which every read fails.
    read_fault: Option<Errno>,
}

/// Operations that fail. Of a write that fails the first half is done.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// How many operations succeed first.
    pub after: usize,
    /// How many fail then.
    pub count: usize,
    pub errno: Errno,
}

/// The file system, mounted until this is dropped.
pub struct Recorder {
    state: Arc<Mutex<State>>,
    start: Image,
    session: Option<BackgroundSession>,
    mount_point: MountPoint,
}

/// How much of what was not synced is on the disk after all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    None,
    All,
    /// Some sectors, lengths and names.
    Some(u64),
}

impl Image {
    fn new() -> Self {
        let mut image = Self {
            nodes: HashMap::new(),
            next: ROOT,
        };
        image.add(Content::Folder(BTreeMap::new()), 0o755);
        // Who looks for locks goes by inodes alone (`/proc/locks`): no other test's may have these.
        image.next =
            (u64::from(std::process::id()) << 32) + (NEXT.fetch_add(1, Ordering::Relaxed) << 20);
        image
    }

    fn add(&mut self, content: Content, mode: u16) -> u64 {
        let number = self.next;
        self.next += 1;
        let node = Node {
            content,
            mode,
            changed: SystemTime::now(),
        };
        self.nodes.insert(number, node);
        number
    }

    fn file(&mut self, number: u64) -> Option<&mut Vec<u8>> {
        match self.nodes.get_mut(&number) {
            Some(Node {
                content: Content::File(bytes),
                ..
            }) => Some(bytes),
            _ => None,
        }
    }

    fn folder(&mut self, number: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match self.nodes.get_mut(&number) {
            Some(Node {
                content: Content::Folder(names),
                ..
            }) => Some(names),
            _ => None,
        }
    }

    fn child(&mut self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folder(folder)?.get(name).copied()
    }

    fn write(&mut self, file: u64, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        let file = self.file(file).unwrap();
        let end = offset + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write {
                file,
                offset,
                bytes,
            } => self.write(*file, *offset, bytes),
            Op::SetLen { file, len } => {
                let len = usize::try_from(*len).unwrap();
                self.file(*file).unwrap().resize(len, 0);
            }
            Op::Link { folder, name, node } => {
                self.folder(*folder).unwrap().insert(name.clone(), *node);
            }
            Op::Unlink { folder, name } => {
                self.folder(*folder).unwrap().remove(name);
            }
            Op::Rename { folder, from, to } => {
                let names = self.folder(*folder).unwrap();
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Op::Sync { .. } => {}
        }
    }

    /// Makes what is in a folder at `path`.
    fn write_to(&mut self, folder: u64, path: &Path) {
        use std::os::unix::fs::PermissionsExt;
        fs::create_dir(path).unwrap();
        for (name, number) in self.folder(folder).unwrap().clone() {
            let node = self.nodes[&number].clone();
            let path = path.join(name);
            match node.content {
                Content::Folder(_) => self.write_to(number, &path),
                Content::File(bytes) => fs::write(&path, bytes).unwrap(),
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(u32::from(node.mode))).unwrap();
        }
    }
}

impl Recorder {
    /// One that has one file, durably.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        let mut start = Image::new();
        let file = start.add(Content::File(bytes), 0o644);
        start.folder(ROOT).unwrap().insert(name.into(), file);
        let state = Arc::new(Mutex::new(State {
            now: start.clone(),
            ops: Vec::new(),
            fault: None,
            failures: 0,
            read_fault: None,
        }));
        let mount_point = MountPoint::new();
        let session = fuser::spawn_mount(
            Memory(state.clone()),
            mount_point.path(),
            &Config::default(),
        )
        .unwrap();
        Self {
            state,
            start,
            session: Some(session),
            mount_point,
        }
    }

    pub fn path(&self) -> &Path {
        self.mount_point.path()
    }

    /// From now on lets operations fail.
    pub fn fail(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = Some(fault);
        state.failures = 0;
    }

    /// From now on all succeed. Says how many failed.
    pub fn heal(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.fault = None;
        state.failures
    }

    /// From now on every read fails that the kernel asks for, or none does.
    pub fn fail_reads(&self, errno: Option<Errno>) {
        self.state.lock().unwrap().read_fault = errno;
    }

    /// What the file of that name holds.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        let file = state.now.child(ROOT, OsStr::new(name)).unwrap();
        state.now.file(file).unwrap().clone()
    }

    /// How much was done so far.
    pub fn position(&self) -> usize {
        self.state.lock().unwrap().ops.len()
    }

    /// All that was done.
    pub fn ops(&self) -> Vec<Op> {
        self.state.lock().unwrap().ops.clone()
    }

    /// Makes at `path` what a disk may hold if the machine went down after the first `count` of `ops`.
    pub fn crash(&self, ops: &[Op], count: usize, unsynced: Unsynced, path: &Path) {
        let mut disk = self.start.clone();
        // Inodes are made by what names them; their content is empty until it is written.
        for (number, node) in &self.state.lock().unwrap().now.nodes {
            disk.nodes.entry(*number).or_insert_with(|| Node {
                content: match node.content {
                    Content::Folder(_) => Content::Folder(BTreeMap::new()),
                    Content::File(_) => Content::File(Vec::new()),
                },
                ..node.clone()
            });
        }
        let mut pending: BTreeMap<u64, Vec<&Op>> = BTreeMap::new();
        for op in &ops[..count] {
            match op {
                Op::Sync { node } => {
                    for op in pending.remove(node).unwrap_or_default() {
                        disk.apply(op);
                    }
                }
                Op::Write { file: node, .. }
                | Op::SetLen { file: node, .. }
                | Op::Link { folder: node, .. }
                | Op::Unlink { folder: node, .. }
                | Op::Rename { folder: node, .. } => pending.entry(*node).or_default().push(op),
            }
        }
        let mut random = match unsynced {
            Unsynced::Some(seed) => Some(Random(seed)),
            Unsynced::None | Unsynced::All => None,
        };
        for ops in pending.into_values() {
            match (&mut random, unsynced) {
                (Some(random), _) => apply_some(&mut disk, &ops, random),
                (None, Unsynced::All) => ops.into_iter().for_each(|op| disk.apply(op)),
                (None, _) => {}
            }
        }
        disk.write_to(ROOT, path);
    }
}

/// Names come in the order in which they were made, as file systems with a journal have it; lengths and sectors come as they like.
fn apply_some(disk: &mut Image, ops: &[&Op], random: &mut Random) {
    let names = random.below(ops.len() + 1);
    for (number, op) in ops.iter().enumerate() {
        match op {
            Op::Write {
                file,
                offset,
                bytes,
            } => {
                let end = offset + bytes.len() as u64;
                if random.below(2) == 0 {
                    let file = disk.file(*file).unwrap();
                    let len = file.len().max(usize::try_from(end).unwrap());
                    file.resize(len, 0);
                }
                let mut at = *offset;
                while at < end {
                    let next = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    let next = next.min(end);
                    if random.below(2) == 0 {
                        let part = usize::try_from(at - offset).unwrap()
                            ..usize::try_from(next - offset).unwrap();
                        disk.write(*file, at, &bytes[part]);
                    }
                    at = next;
                }
            }
            Op::SetLen { .. } if random.below(2) == 0 => disk.apply(op),
            Op::SetLen { .. } => {}
            _ if number < names => disk.apply(op),
            _ => {}
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(session);
        }
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o777).unwrap()
}

fn done(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

/// What the kernel asks.
struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Does something, unless that is to fail.
    fn attempt(&mut self, op: Op) -> Result<(), Errno> {
        if let Some(fault) = &mut self.fault {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.count > 0 {
                fault.count -= 1;
                let errno = fault.errno;
                self.failures += 1;
                if let Op::Write {
                    file,
                    offset,
                    bytes,
                } = op
                    && bytes.len() > 1
                {
                    self.note(Op::Write {
                        file,
                        offset,
                        bytes: bytes[..bytes.len() / 2].to_vec(),
                    });
                }
                return Err(errno);
            }
        }
        self.note(op);
        Ok(())
    }

    /// Notes something and does it.
    fn note(&mut self, op: Op) {
        self.now.apply(&op);
        let node = match &op {
            Op::Write { file: node, .. }
            | Op::SetLen { file: node, .. }
            | Op::Link { folder: node, .. }
            | Op::Unlink { folder: node, .. }
            | Op::Rename { folder: node, .. } => Some(node),
            Op::Sync { .. } => None,
        };
        if let Some(node) = node.and_then(|node| self.now.nodes.get_mut(node)) {
            node.changed = SystemTime::now();
        }
        self.ops.push(op);
    }

    fn attr(&self, number: u64) -> Option<FileAttr> {
        let node = self.now.nodes.get(&number)?;
        let (kind, size) = match &node.content {
            Content::Folder(_) => (FileType::Directory, 0),
            Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
        };
        let is_named = number == ROOT
            || self.now.nodes.values().any(|node| match &node.content {
                Content::Folder(names) => names.values().any(|&named| named == number),
                Content::File(_) => false,
            });
        Some(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: node.changed,
            mtime: node.changed,
            ctime: node.changed,
            crtime: node.changed,
            kind,
            perm: node.mode,
            nlink: u32::from(is_named),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn make(
        &mut self,
        folder: u64,
        name: &OsStr,
        content: Content,
        mode: u32,
    ) -> Result<FileAttr, Errno> {
        if self.now.child(folder, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let node = self.now.add(content, permissions(mode));
        self.attempt(Op::Link {
            folder,
            name: name.to_owned(),
            node,
        })?;
        Ok(self.attr(node).unwrap())
    }

    fn remove(&mut self, folder: u64, name: &OsStr, reply: ReplyEmpty) {
        if self.now.child(folder, name).is_none() {
            return reply.error(Errno::ENOENT);
        }
        done(
            self.attempt(Op::Unlink {
                folder,
                name: name.to_owned(),
            }),
            reply,
        );
    }
}

impl Filesystem for Memory {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.state();
        let child = state.now.child(parent.0, name);
        match child.and_then(|child| state.attr(child)) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state().attr(ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state();
        if let Some(len) = size
            && let Err(errno) = state.attempt(Op::SetLen { file: ino.0, len })
        {
            return reply.error(errno);
        }
        if let (Some(mode), Some(node)) = (mode, state.now.nodes.get_mut(&ino.0)) {
            node.mode = permissions(mode);
        }
        reply.attr(&TTL, &state.attr(ino.0).unwrap());
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        match self
            .state()
            .make(parent.0, name, Content::Folder(BTreeMap::new()), mode)
        {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self
            .state()
            .make(parent.0, name, Content::File(Vec::new()), mode)
        {
            Ok(attr) => reply.created(
                &TTL,
                &attr,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.state().remove(parent.0, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state();
        let folder = state.now.child(parent.0, name).unwrap_or(0);
        if state
            .now
            .folder(folder)
            .is_some_and(|names| !names.is_empty())
        {
            return reply.error(Errno::ENOTEMPTY);
        }
        state.remove(parent.0, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if parent != new_parent {
            return reply.error(Errno::EXDEV);
        }
        let renamed = self.state().attempt(Op::Rename {
            folder: parent.0,
            from: name.to_owned(),
            to: new_name.to_owned(),
        });
        done(renamed, reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.state();
        if let Some(errno) = state.read_fault {
            return reply.error(errno);
        }
        let Some(bytes) = state.now.file(ino.0) else {
            return reply.error(Errno::EISDIR);
        };
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = (start + size as usize).min(bytes.len());
        reply.data(&bytes[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.state().attempt(Op::Write {
            file: ino.0,
            offset,
            bytes: data.to_vec(),
        });
        match written {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.state().attempt(Op::Sync { node: ino.0 });
        done(synced, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.state().attempt(Op::Sync { node: ino.0 });
        done(synced, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.state();
        let names = state.now.folder(ino.0).unwrap().clone();
        for (next, (name, child)) in (1..).zip(names).skip(usize::try_from(offset).unwrap()) {
            let kind = state.attr(child).unwrap().kind;
            if reply.add(INodeNo(child), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
