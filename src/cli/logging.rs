//! Where log lines go: `RUST_LOG` says which (`warn` without it), to stderr in the foreground, to syslog in the background.

use std::io::Write;

use log::{Log, Metadata, Record};
use syslog::{BasicLogger, Facility, Formatter3164};

const DEFAULT_FILTER: &str = "warn";

/// Log to stderr, and panics too.
pub(super) fn to_stderr() {
    builder().init();
    log_panics();
}

/// Log to stderr where `RUST_LOG` asks for it: for commands that print all that there is to say.
pub(super) fn to_stderr_if_asked() {
    if std::env::var_os(env_logger::DEFAULT_FILTER_ENV).is_some() {
        builder().init();
    }
    log_panics();
}

/// Log to syslog, which systemd's journal listens to as well, and panics too. Without one, nothing is logged; who asked for a log by
/// `RUST_LOG` is told so.
pub(super) fn to_syslog() {
    let formatter = Formatter3164 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: env!("CARGO_PKG_NAME").into(),
        pid: std::process::id(),
    };
    match syslog::unix(formatter) {
        Ok(syslog) => {
            let filter = builder().build();
            let level = filter.filter();
            let logger = FilteredSyslog {
                filter,
                syslog: BasicLogger::new(syslog),
            };
            if log::set_boxed_logger(Box::new(logger)).is_ok() {
                log::set_max_level(level);
            }
        }
        Err(_) if std::env::var_os(env_logger::DEFAULT_FILTER_ENV).is_some() => {
            eprintln!(
                "vh5fs: no system log to write to (/dev/log); RUST_LOG has no effect without -f"
            );
        }
        Err(_) => {}
    }
    log_panics();
}

fn builder() -> env_logger::Builder {
    let mut builder =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(DEFAULT_FILTER));
    builder.format(|out, record| writeln!(out, "vh5fs: {}: {}", record.level(), record.args()));
    builder
}

/// A panic is a line of the log, with its place; in the background stderr leads nowhere.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed").to_owned();
        log::error!("thread {name}: {}", panic.to_string().replace('\n', " "));
    }));
}

struct FilteredSyslog {
    filter: env_logger::Logger,
    syslog: BasicLogger,
}

impl Log for FilteredSyslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.syslog.log(record);
        }
    }

    fn flush(&self) {
        self.syslog.flush();
    }
}
