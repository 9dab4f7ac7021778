//! What control files are told to do, done.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

use super::control::{self, Control, ControlError};
use super::handles::Handle;
use super::staged::OpenControl;
use super::{AttrChange, FsError, NewTime, Opened, Vfs};
use crate::staging::CommitRequest;

impl Vfs {
    /// Opens a control file.
    pub(super) fn open_control(&self, control: Control, flags: i32) -> Result<Opened, FsError> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY && !control.is_writable() {
            return Err(FsError::NotPermitted);
        }
        let open = OpenControl::new(self.staging()?, control);
        Ok(Opened {
            handle: self.handles.add(Handle::Control(open)),
            keep_cache: false,
            direct_io: true,
        })
    }

    /// The times or the length of a control file are set. A new length comes from a redirection, which goes on to write.
    pub(super) fn touch(&self, control: Control, change: AttrChange) -> Result<(), FsError> {
        let mtime = match change {
            AttrChange {
                size_bytes: None,
                mtime: Some(mtime),
            } => mtime,
            AttrChange {
                size_bytes: None,
                mtime: None,
            } => return Ok(()),
            AttrChange { .. } if control.is_writable() => return Ok(()),
            AttrChange { .. } => return Err(FsError::NotPermitted),
        };
        match control {
            Control::Commit => {
                let timestamp = match mtime {
                    NewTime::Now => Ok(None),
                    NewTime::At(time) => instant(time).map(Some),
                };
                self.commit(timestamp.map(control::commit_at))
            }
            Control::Reset => self.reset(None),
            Control::Status => Err(FsError::NotPermitted),
        }
    }

    /// Something is written to a control file.
    pub(super) fn order(&self, control: Control, text: &[u8]) -> Result<(), FsError> {
        match control {
            Control::Commit => self.commit(control::commit_request(text)),
            Control::Reset => self.reset(control::reset_target(text)),
            Control::Status => Err(FsError::NotPermitted),
        }
    }

    fn commit(&self, request: Result<CommitRequest, ControlError>) -> Result<(), FsError> {
        let staging = self.staging()?;
        let request = request.inspect_err(|error| staging.refuse_commit(error))?;
        let committed = staging.commit(&request);
        self.announcer.settle();
        committed?;
        Ok(())
    }

    fn reset(&self, version: Option<&[u8]>) -> Result<(), FsError> {
        let reset = self.staging()?.reset(version);
        self.announcer.settle();
        Ok(reset?)
    }
}

/// A time as the calendar has it.
fn instant(time: SystemTime) -> Result<DateTime<Utc>, ControlError> {
    let (seconds, nanoseconds) = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            let whole = i64::try_from(before.as_secs()).map(|seconds| -seconds);
            match before.subsec_nanos() {
                0 => (whole, 0),
                part => (whole.map(|seconds| seconds - 1), 1_000_000_000 - part),
            }
        }
    };
    seconds
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, nanoseconds))
        .ok_or(ControlError::TimeOutOfRange)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_before_and_after_the_epoch_and_beyond_the_calendar() {
        let epoch = SystemTime::UNIX_EPOCH;
        let utc = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let fraction = Duration::from_millis(1500);
        assert_eq!(instant(epoch + fraction), Ok(utc("1970-01-01T00:00:01.5Z")));
        assert_eq!(instant(epoch - fraction), Ok(utc("1969-12-31T23:59:58.5Z")));
        assert_eq!(
            instant(epoch - Duration::from_secs(1)),
            Ok(utc("1969-12-31T23:59:59Z"))
        );
        let far = Duration::from_secs(1 << 50);
        assert_eq!(instant(epoch + far), Err(ControlError::TimeOutOfRange));
        assert_eq!(instant(epoch - far), Err(ControlError::TimeOutOfRange));
    }
}
