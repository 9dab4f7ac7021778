//! The next version: a tree of changes over a version of the file, edited bytes in overlay files, and its durable state.
//!
//! [`Staging`] is the whole interface. It knows what is to be in the next version and gives that to
//! [`VersionedFile::commit`]; it does not know how a version is written, nor what asks for the changes.

mod block_set;
mod change;
mod change_log;
mod error;

mod overlay;
mod sidecar;
mod tree;
mod types;

use std::sync::Arc;

pub use error::StagingError;
pub use types::{
    Allocate, CommitRequest, NodeId, RenameMode, SetMode, StagedAttributes, StagedEntry,
    StagedKind, StagedStat,
};

use crate::store::{CommitReport, VersionedFile};

/// An open dataset, closed when dropped. It goes on being the same dataset when it is renamed, removed or committed.
#[derive(Debug)]
pub struct StagedFile {
    node: NodeId,
}

impl StagedFile {
    /// Which one it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }
}

/// What changed under its observers' feet: content and attributes of these nodes, and names in them, may be others now.
pub type OnReplaced = Box<dyn Fn(&[NodeId]) + Send + Sync>;

/// The staged tree of one mount. All methods can be called from many threads.
#[derive(Debug)]
pub struct Staging {
    file: Arc<VersionedFile>,
}

#[allow(clippy::unused_self, unused_variables, clippy::needless_pass_by_value)]
impl Staging {
    /// Staging of `file`, as yet without any change. Touches nothing on disk.
    #[must_use]
    pub fn new(file: Arc<VersionedFile>) -> Self {
        Self { file }
    }

    /// Takes up what an earlier mount left staged, if it did.
    ///
    /// # Errors
    /// [`StagingError::Held`], [`StagingError::BaseGone`], or what is wrong with the folder of staged state. Until that is resolved, all other
    /// methods fail with the same.
    pub fn recover(&self) -> Result<(), StagingError> {
        self.missing()
    }

    /// Makes everything durable and removes the folder of staged state if nothing is staged. To be called at unmount.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn close(&self) -> Result<(), StagingError> {
        self.missing()
    }

    /// Is told, after a commit, a reset, or another program's commit, which nodes to look at again.
    pub fn on_replaced(&self, on_replaced: OnReplaced) {}

    /// The node that is shown as `name` in a group.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::NotADirectory`], [`StagingError::Stale`].
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.missing()
    }

    /// What a group contains, in the byte order of the names as shown.
    ///
    /// # Errors
    /// [`StagingError::NotADirectory`], [`StagingError::Stale`].
    pub fn list(&self, group: NodeId) -> Result<Vec<StagedEntry>, StagingError> {
        self.missing()
    }

    /// The group that holds a node; the root holds itself.
    ///
    /// # Errors
    /// [`StagingError::Stale`].
    pub fn parent(&self, node: NodeId) -> Result<NodeId, StagingError> {
        self.missing()
    }

    /// Group or dataset.
    ///
    /// # Errors
    /// [`StagingError::Stale`].
    pub fn kind(&self, node: NodeId) -> Result<StagedKind, StagingError> {
        self.missing()
    }

    /// Kind, length, times. Also of a removed dataset that is still open.
    ///
    /// # Errors
    /// [`StagingError::Stale`], or what is wrong with the dataset.
    pub fn stat(&self, node: NodeId) -> Result<StagedStat, StagingError> {
        self.missing()
    }

    /// Makes an empty dataset.
    ///
    /// # Errors
    /// [`StagingError::Exists`], [`StagingError::BadName`], or those of the folder of staged state.
    pub fn create(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.missing()
    }

    /// Makes an empty group.
    ///
    /// # Errors
    /// As for [`Staging::create`].
    pub fn mkdir(&self, parent: NodeId, name: &[u8]) -> Result<NodeId, StagingError> {
        self.missing()
    }

    /// Removes a dataset; who has it open goes on with it.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::IsADirectory`].
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.missing()
    }

    /// Removes an empty group.
    ///
    /// # Errors
    /// [`StagingError::NotFound`], [`StagingError::NotADirectory`], [`StagingError::NotEmpty`].
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.missing()
    }

    /// Moves a node. A dataset that replaces another one keeps its own type and attributes, and takes what it does not have from that one.
    ///
    /// # Errors
    /// Those of `rename(2)`.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<(), StagingError> {
        self.missing()
    }

    /// Opens a dataset, for writing too if `write`; cut to nothing first if `truncate`.
    ///
    /// # Errors
    /// [`StagingError::IsADirectory`], [`StagingError::NotPermitted`] for writing to what can only be read.
    pub fn open(
        &self,
        node: NodeId,
        write: bool,
        truncate: bool,
    ) -> Result<StagedFile, StagingError> {
        self.missing()
    }

    /// Fills `buffer` from `offset` on as far as the bytes go, and says how many there were.
    ///
    /// # Errors
    /// What is wrong with the version or with what is staged.
    pub fn read_at(
        &self,
        file: &StagedFile,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, StagingError> {
        self.missing()
    }

    /// Writes, and says how many bytes; fewer than all where room ended in between.
    ///
    /// # Errors
    /// [`StagingError::Sidecar`], [`StagingError::TooLong`], or of the version, whose bytes around the written ones are copied. Nothing is
    /// changed then.
    pub fn write_at(
        &self,
        file: &StagedFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, StagingError> {
        self.missing()
    }

    /// Writes behind the last byte (`O_APPEND`).
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn append(&self, file: &StagedFile, bytes: &[u8]) -> Result<usize, StagingError> {
        self.missing()
    }

    /// Sets the length; what is new reads as zeros.
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn truncate(&self, node: NodeId, len_bytes: u64) -> Result<(), StagingError> {
        self.missing()
    }

    /// `fallocate(2)`.
    ///
    /// # Errors
    /// As for [`Staging::write_at`].
    pub fn allocate(
        &self,
        file: &StagedFile,
        mode: Allocate,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(), StagingError> {
        self.missing()
    }

    /// The first byte at `offset` or behind it that is data, or that is a hole (`for_hole`).
    ///
    /// # Errors
    /// [`StagingError::NoSuchOffset`], or what is wrong with the version.
    pub fn seek(
        &self,
        file: &StagedFile,
        offset: u64,
        for_hole: bool,
    ) -> Result<u64, StagingError> {
        self.missing()
    }

    /// Makes a dataset's bytes and all names and attributes durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync(&self, file: &StagedFile) -> Result<(), StagingError> {
        self.missing()
    }

    /// Makes everything durable.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn fsync_all(&self) -> Result<(), StagingError> {
        self.missing()
    }

    /// All extended attributes of a node.
    ///
    /// # Errors
    /// [`StagingError::Stale`], or what is wrong with the object in the version.
    pub fn attributes(&self, node: NodeId) -> Result<StagedAttributes, StagingError> {
        self.missing()
    }

    /// Sets an attribute, `name` without its namespace.
    ///
    /// # Errors
    /// [`StagingError::AttributeExists`], [`StagingError::NoAttribute`], [`StagingError::NotPermitted`],
    /// [`StagingError::Description`], [`StagingError::Shape`].
    pub fn set_attribute(
        &self,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        mode: SetMode,
    ) -> Result<(), StagingError> {
        self.missing()
    }

    /// Removes an attribute, `name` without its namespace.
    ///
    /// # Errors
    /// [`StagingError::NoAttribute`], [`StagingError::NotPermitted`].
    pub fn remove_attribute(&self, node: NodeId, name: &[u8]) -> Result<(), StagingError> {
        self.missing()
    }

    /// What the next version is based on, each change, and what became of the last commit, as text.
    #[must_use]
    pub fn status(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Makes a version of what is staged, and starts over from it.
    ///
    /// # Errors
    /// [`StagingError::Commit`]; everything is then still staged.
    pub fn commit(&self, request: &CommitRequest) -> Result<CommitReport, StagingError> {
        self.missing()
    }

    /// Drops what is staged and starts over: from the current version, or from the one that is shown as `version`.
    ///
    /// # Errors
    /// [`StagingError::NoSuchVersion`].
    pub fn reset(&self, version: Option<&[u8]>) -> Result<(), StagingError> {
        self.missing()
    }

    fn missing<T>(&self) -> Result<T, StagingError> {
        Err(StagingError::SidecarForeign {
            path: self.file.path().to_owned(),
            what: "staging is not there yet",
        })
    }
}
