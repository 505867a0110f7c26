//! What the system knows of this process.

use std::fs;

/// Numbers about a process; `None` where the system doesn't tell them, as outside of Linux.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Numbers {
    /// Time on processors, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Memory in use, in bytes.
    pub(super) resident_bytes: Option<f64>,
    /// Addresses in use, in bytes.
    pub(super) virtual_bytes: Option<f64>,
    /// When it started, in seconds since 1970.
    pub(super) start_seconds: Option<f64>,
    /// Open files and sockets.
    pub(super) open_files: Option<f64>,
    /// How many there may be.
    pub(super) max_files: Option<f64>,
    /// How many addresses there may be, in bytes; -1 where there is no limit.
    pub(super) max_virtual_bytes: Option<f64>,
    /// Bytes that came over any network to this machine (or container).
    pub(super) network_received_bytes: Option<f64>,
    /// Bytes that went.
    pub(super) network_sent_bytes: Option<f64>,
}

/// Ticks of a second in `/proc`: a constant of Linux's interface on every machine that we run on.
const TICKS: f64 = 100.0;

/// The numbers as they are now.
pub(super) fn numbers() -> Numbers {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let network = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let mut numbers = Numbers {
        open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64),
        max_files: limit(&limits, "Max open files"),
        max_virtual_bytes: limit(&limits, "Max address space"),
        network_received_bytes: network_bytes(&network, "InOctets"),
        network_sent_bytes: network_bytes(&network, "OutOctets"),
        ..Numbers::default()
    };
    if let Ok(text) = fs::read_to_string("/proc/self/stat") {
        // The name, in parentheses, may hold anything; the fields behind it are numbers, the state the third.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        numbers.cpu_seconds = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
        numbers.virtual_bytes = field(23);
        numbers.start_seconds = field(22).zip(boot_seconds()).map(|(ticks, boot)| boot + ticks / TICKS);
    }
    if let Ok(text) = fs::read_to_string("/proc/self/status") {
        numbers.resident_bytes = resident_bytes(&text);
    }
    numbers
}

/// A limit of a process; -1 where there is none.
pub(super) fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(-1.0) } else { soft.parse().ok() }
}

/// A number of the IP layer: a line has the names, and the next one the numbers.
fn network_bytes(netstat: &str, name: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("IpExt:"));
    let place = lines.next()?.split_whitespace().position(|field| field == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn boot_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            20000                20000                files\n";
        assert_eq!(limit(limits, "Max open files"), Some(20_000.0));
        assert_eq!(limit("Max address space         unlimited            unlimited", "Max address space"), Some(-1.0));
        let netstat = "TcpExt: A\nTcpExt: 1\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n";
        assert_eq!((network_bytes(netstat, "InOctets"), network_bytes(netstat, "OutOctets")), (Some(12.0), Some(34.0)));
        assert_eq!((network_bytes("IpExt: InOctets\n", "InOctets"), network_bytes("", "InOctets")), (None, None));
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1_263_616.0));
        assert_eq!((limit("", "Max open files"), resident_bytes("VmRSS: many")), (None, None));
    }
}
