//! What the operating system tells about this machine and this process.

/// The most memory that the process has held, in bytes (VmHWM); nothing where the system does not tell.
pub(crate) fn peak_memory() -> Option<u64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Time that processors have worked for this process, all threads together: what a busy machine leaves comparable.
pub(crate) fn cpu_seconds() -> Option<f64> {
    // Linux counts in hundredths of a second here, whatever its own clock is.
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field after it.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS)
}

/// Memory of the machine, in bytes.
pub(crate) fn total_memory() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemTotal:")
}

/// The processor's name.
pub(crate) fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|k| k * 1024)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn linux_tells_both() {
        let (peak, total) = (peak_memory().unwrap(), total_memory().unwrap());
        assert!(peak > 1 << 20 && peak < total, "{peak} of {total}");
        let before = cpu_seconds().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_secs_f64() < 30.0 && cpu_seconds().unwrap() < before + 0.05 {}
        assert!(cpu_seconds().unwrap() >= before + 0.05);
    }
}
