//! Whether a running git makes progress: it writes output, or it computes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// CPU time that counts as progress. Answering keep-alives of a connection takes far less.
const CPU: u64 = 100;
/// How often the CPU time is looked at, where the quiet time is not shorter.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Ends when the process group has neither read a byte (`bytes` did not move) nor used a second of
/// CPU time for as long as `quiet`.
pub(crate) async fn stalled(group: Option<u32>, quiet: Duration, bytes: &AtomicU64) {
    let mut seen = (bytes.load(Ordering::Relaxed), cpu_ticks(group));
    let mut at = Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY.min(quiet / 4)).await;
        let now = (bytes.load(Ordering::Relaxed), cpu_ticks(group));
        if now.0 != seen.0 || now.1 < seen.1 || now.1 - seen.1 >= CPU {
            (seen, at) = (now, Instant::now());
        } else if at.elapsed() >= quiet {
            return;
        }
    }
}

/// The CPU time of all processes of a group, in hundredths of a second; 0 when it cannot be read.
fn cpu_ticks(group: Option<u32>) -> u64 {
    let (Some(group), Ok(processes)) = (group, std::fs::read_dir("/proc")) else { return 0 };
    let is_pid = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| n.parse::<u32>().is_ok());
    processes
        .flatten()
        .filter(|entry| is_pid(&entry.file_name()))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter_map(|stat| ticks_in(&stat, group))
        .sum()
}

/// The CPU time in the text of `/proc/<pid>/stat`, with that of children that have ended; `None`
/// for a process of another group.
fn ticks_in(stat: &str, group: u32) -> Option<u64> {
    // The program's name, in parentheses, may have any character.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    (number(2)? == u64::from(group)).then(|| (11..=14).filter_map(number).sum())
}

/// git's error output without its progress: what a person reads when it failed.
pub(crate) fn without_progress(output: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(output);
    let lines = text.split(['\n', '\r']).filter(|l| !l.trim().is_empty() && !is_progress(l));
    let mut kept = lines.collect::<Vec<_>>().join("\n");
    if !kept.is_empty() {
        kept.push('\n');
    }
    kept.into_bytes()
}

/// Whether a line is git's progress, such as `Receiving objects:  42% (1/2), 3 KiB | 1 KiB/s`, or
/// its list of what was fetched.
fn is_progress(line: &str) -> bool {
    let line = line.trim();
    let line = line.strip_prefix("remote:").unwrap_or(line).trim();
    if line.starts_with("Total ") && line.contains("(delta ")
        || line.starts_with("Delta compression using")
        || line.starts_with("From ")
        || line.starts_with("* [new ")
        || line.starts_with("* branch ")
    {
        return true;
    }
    let Some((title, rest)) = line.split_once(':') else { return false };
    let rest = rest.trim();
    let counts =
        rest.contains("% (") || rest.ends_with("done.") || rest.bytes().all(|b| b.is_ascii_digit());
    title.chars().all(|c| c.is_ascii_alphabetic() || c == ' ')
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_left_out_of_what_people_read_and_errors_are_kept() {
        let output = b"remote: Enumerating objects: 5, done.        \n\
            remote: Counting objects:  20% (1/5)        \rremote: Counting objects: 100% (5/5), done.        \n\
            remote: Total 5 (delta 0), reused 0 (delta 0), pack-reused 0\n\
            Receiving objects:  20% (1/5)\rReceiving objects: 100% (5/5), 1.2 KiB | 3 KiB/s, done.\n\
            remote: error: 5 files are larger than 100 MB\n\
            fatal: the remote end hung up unexpectedly\n";
        assert_eq!(
            String::from_utf8(without_progress(output)).unwrap(),
            "remote: error: 5 files are larger than 100 MB\nfatal: the remote end hung up unexpectedly\n"
        );
        assert_eq!(without_progress(b"Unpacking objects: 7\r"), b"");
    }

    #[test]
    fn cpu_time_is_counted_for_the_processes_of_one_group() {
        let stat = "12 (a) b (c) R 1 77 77 0 -1 4194304 1 2 3 4 10 20 3 4 20 0 1 0 5 6 7";
        assert_eq!(ticks_in(stat, 77), Some(37));
        assert_eq!(ticks_in(stat, 12), None);
        assert_eq!(ticks_in("junk", 77), None);
    }

    #[tokio::test]
    async fn a_run_that_writes_nothing_stalls_and_one_that_writes_does_not() {
        let bytes = AtomicU64::new(0);
        let quiet = Duration::from_millis(200);
        stalled(None, quiet, &bytes).await;
        let writing = async {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                bytes.fetch_add(1, Ordering::Relaxed);
            }
        };
        tokio::select! {
            () = stalled(None, quiet, &bytes) => panic!("it was writing"),
            () = writing => {}
        }
    }
}
