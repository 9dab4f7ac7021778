//! Requests that may take their time, as jobs that can wait until there is a thread for them.

use std::cell::RefCell;

use fuser::{ReplyData, ReplyWrite};

use super::answers::{call, reply_write};
use crate::fs::{HandleId, Vfs};

thread_local! {
    /// What a read is answered from; as long as the longest read so far, a megabyte or so.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A request that changes something, with its reply.
pub(super) struct Change(pub(super) Box<dyn FnOnce(&Vfs) + Send>);

/// A read that the kernel waits for.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) handle: HandleId,
    pub(super) offset: u64,
    pub(super) len_bytes: usize,
    pub(super) reply: ReplyData,
}

/// Bytes that the kernel wants written, in the buffer that they came in.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) handle: HandleId,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
    pub(super) appends: bool,
    pub(super) reply: ReplyWrite,
}

/// Reads and replies.
pub(super) fn answer_read(vfs: &Vfs, read: Read) {
    let Read {
        handle,
        offset,
        len_bytes,
        reply,
    } = read;
    BUFFER.with_borrow_mut(|buffer| {
        // Never shrunk, so that a buffer is zeroed once and not for each read.
        if buffer.len() < len_bytes {
            buffer.resize(len_bytes, 0);
        }
        let buffer = &mut buffer[..len_bytes];
        match call("read", || vfs.read_into(handle, offset, buffer)) {
            Ok(count) => reply.data(&buffer[..count]),
            Err(errno) => reply.error(errno),
        }
    });
}

impl Write<'_> {
    /// As a change of its own, with its bytes.
    pub(super) fn kept(self) -> Change {
        let Self {
            handle,
            offset,
            data,
            appends,
            reply,
        } = self;
        let data = data.to_owned();
        Change(Box::new(move |vfs| {
            let write = Write {
                handle,
                offset,
                data: &data,
                appends,
                reply,
            };
            answer_write(vfs, write);
        }))
    }
}

/// Writes and replies.
pub(super) fn answer_write(vfs: &Vfs, write: Write<'_>) {
    let Write {
        handle,
        offset,
        data,
        appends,
        reply,
    } = write;
    reply_write(
        reply,
        call("write", || vfs.write(handle, offset, data, appends)),
    );
}
