//! What the system knows of this process.

use crate::files;

/// Ticks of a second in `/proc`: a constant of Linux's interface on every machine that we run on.
const TICKS: f64 = 100.0;

/// A figure about the process: its name, its help, and its value; `None` where the system doesn't tell it, as outside of
/// Linux.
type Figure = (&'static str, &'static str, Option<f64>);

/// The figures as they are now.
pub(super) fn figures() -> [Figure; 11] {
    let read = |file: &str| files::text(format!("/proc/self/{file}")).unwrap_or_default();
    let (limits, network, status, stat) = (read("limits"), read("net/netstat"), read("status"), read("stat"));
    // The name, in parentheses, may hold anything; the fields behind it are numbers, the state the third.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let files = files::count("/proc/self/fd").ok().map(|count| count as f64);
    let max_files = limit(&limits, "Max open files");
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS);
    let start = field(22).zip(boot_seconds()).map(|(ticks, boot)| boot + ticks / TICKS);
    let max_addresses = limit(&limits, "Max address space");
    let (received, sent) = (network_bytes(&network, "InOctets"), network_bytes(&network, "OutOctets"));
    [
        ("process_cpu_seconds_total", "Time on processors, in seconds.", cpu),
        ("process_resident_memory_bytes", "Memory in use, in bytes.", resident_bytes(&status)),
        ("process_virtual_memory_bytes", "Addresses in use, in bytes.", field(23)),
        ("process_virtual_memory_max_bytes", "How many there may be; negative: there is no limit.", max_addresses),
        ("process_start_time_seconds", "When it started, in seconds since 1970.", start),
        ("process_open_fds", "Open files and sockets.", files),
        ("process_max_fds", "How many there may be.", max_files),
        ("process_network_receive_bytes_total", "Bytes that came to this machine or container.", received),
        ("process_network_transmit_bytes_total", "Bytes that went from it.", sent),
        ("os_fd_used", "Open files and sockets.", files),
        ("os_fd_limit", "How many there may be.", max_files),
    ]
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
    let text = files::text("/proc/stat").ok()?;
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
