//! News for the kernel: what it has to forget, told without waiting, and waited for where somebody is about to look.

use std::sync::OnceLock;
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use super::Stale;

/// How long a commit waits until the kernel has forgotten what was before it. Whoever keeps the kernel from it for longer sees what was
/// before for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the kernel is told.
#[derive(Debug)]
pub struct News {
    /// What it has to forget.
    pub stale: Vec<Stale>,
    /// Sent to when it has forgotten that and all before.
    pub heard: Option<SyncSender<()>>,
}

type Sink = Box<dyn Fn(News) + Send + Sync>;

/// Where news goes, once there is a mount.
#[derive(Default)]
pub(crate) struct Announcer {
    sink: OnceLock<Sink>,
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announcer")
    }
}

impl Announcer {
    /// Only the first one is heard of: a second mount of one tree has no use.
    pub(crate) fn set(&self, sink: Sink) {
        let _ = self.sink.set(sink);
    }

    /// Passes on what has become stale.
    pub(crate) fn tell(&self, stale: Vec<Stale>) {
        if let Some(sink) = self.sink.get()
            && !stale.is_empty()
        {
            sink(News { stale, heard: None });
        }
    }

    /// Waits until the kernel has forgotten all that it was told to.
    pub(crate) fn settle(&self) {
        let Some(sink) = self.sink.get() else {
            return;
        };
        let (heard, is_heard) = mpsc::sync_channel(1);
        sink(News {
            stale: Vec::new(),
            heard: Some(heard),
        });
        // Disconnected: there is no mount any more, and nothing that it remembers.
        if is_heard.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            log::warn!("the kernel takes its time to forget what was before the change");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fs::Ino;

    #[test]
    fn news_is_passed_on_and_waited_for() {
        let announcer = Announcer::default();
        // Before there is anybody to tell.
        announcer.settle();
        announcer.tell(vec![Stale::Content(Ino(5))]);

        let told = Arc::new(Mutex::new(Vec::new()));
        announcer.set(Box::new({
            let told = told.clone();
            move |news| {
                told.lock().unwrap().push(news.stale);
                if let Some(heard) = news.heard {
                    heard.send(()).unwrap();
                }
            }
        }));
        announcer.tell(Vec::new());
        announcer.tell(vec![Stale::Content(Ino(6))]);
        announcer.settle();
        assert_eq!(
            *told.lock().unwrap(),
            [vec![Stale::Content(Ino(6))], Vec::new()]
        );
    }
}
