//! The files of overlays, of which only some are kept open: there may be far more overlays than a process can have files open.

use std::fs::File;
use std::sync::Arc;

use quick_cache::sync::Cache;

use super::StagingError;
use super::sidecar::Sidecar;

/// How many are kept open. A process may often have no more than 1024, the connections of the mount among them.
const KEPT_OPEN: usize = 256;

/// Which of the two files of an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// `N.data`
    Data,
    /// `N.blocks`
    Blocks,
}

impl Part {
    /// The file's name in the sidecar.
    pub(super) fn name(self, number: u64) -> String {
        match self {
            Self::Data => format!("{number}.data"),
            Self::Blocks => format!("{number}.blocks"),
        }
    }
}

/// The open files of a sidecar, by overlay.
#[derive(Debug)]
pub(super) struct OpenFiles {
    open: Cache<(u64, Part), Arc<File>>,
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        Self {
            open: Cache::new(KEPT_OPEN),
        }
    }
}

/// A file of an overlay, opened when it is needed.
#[derive(Debug)]
pub(super) struct OverlayFile {
    sidecar: Arc<Sidecar>,
    number: u64,
    part: Part,
    /// Open for good, since its name may go before this does.
    pinned: Option<Arc<File>>,
}

impl OverlayFile {
    /// Makes an empty one, in place of any that is there.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn create(
        sidecar: &Arc<Sidecar>,
        number: u64,
        part: Part,
    ) -> Result<Self, StagingError> {
        let open = Arc::new(sidecar.create(&part.name(number))?);
        sidecar.open_files().open.insert((number, part), open);
        Ok(Self::of(sidecar, number, part))
    }

    /// One that is there; whether it is, shows when it is opened.
    pub(super) fn of(sidecar: &Arc<Sidecar>, number: u64, part: Part) -> Self {
        Self {
            sidecar: sidecar.clone(),
            number,
            part,
            pinned: None,
        }
    }

    /// The open file. To be let go of soon.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn get(&self) -> Result<Arc<File>, StagingError> {
        if let Some(pinned) = &self.pinned {
            return Ok(pinned.clone());
        }
        let open = &self.sidecar.open_files().open;
        open.get_or_insert_with(&(self.number, self.part), || {
            let name = self.part.name(self.number);
            self.sidecar.open(&name).map(Arc::new)
        })
    }

    /// Keeps it open from now on, so that it can do without its name.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn pin(&mut self) -> Result<(), StagingError> {
        self.pinned = Some(self.get()?);
        Ok(())
    }

    /// Uses another file in its place.
    #[cfg(test)]
    pub(super) fn replace(&mut self, file: Option<File>) {
        self.pinned = file.map(Arc::new);
    }
}

impl Drop for OverlayFile {
    fn drop(&mut self) {
        // A number is not given twice, but its file may be removed now: it is not to take room as long as it would stay open.
        self.sidecar
            .open_files()
            .open
            .remove(&(self.number, self.part));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// How many files of a folder this process has open.
    fn open_in(directory: &std::path::Path) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| path.starts_with(directory) && path.extension().is_some())
            .count()
    }

    #[test]
    fn few_of_many_are_open_and_each_can_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let sidecar = Sidecar::make(&path).unwrap();
        let files: Vec<OverlayFile> = (0..2 * KEPT_OPEN as u64)
            .map(|number| OverlayFile::create(&sidecar, number, Part::Data).unwrap())
            .collect();
        for (file, byte) in files.iter().zip(0u64..) {
            let bytes = byte.to_le_bytes();
            file.get().unwrap().write_all_at(&bytes, 0).unwrap();
        }
        for (file, byte) in files.iter().zip(0u64..) {
            let mut bytes = [0; 8];
            file.get().unwrap().read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), byte);
        }
        let open = open_in(&path);
        assert!((1..=KEPT_OPEN + 16).contains(&open), "{open}");
        drop(files);
        assert_eq!(open_in(&path), 0);
    }

    #[test]
    fn what_is_pinned_needs_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::make(&directory.path().join("s")).unwrap();
        let mut file = OverlayFile::create(&sidecar, 1, Part::Blocks).unwrap();
        file.get().unwrap().write_all_at(b"kept", 0).unwrap();
        file.pin().unwrap();
        sidecar.remove(&Part::Blocks.name(1)).unwrap();
        sidecar.open_files().open.clear();
        let mut bytes = [0; 4];
        file.get().unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
    }
}
