//! Fetching memory into the first-level cache before its turn.

/// Bytes of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// Fetches values `at..at + W`, where there are such.
#[inline(always)]
pub(crate) fn fetch<N, const W: usize>(x: &[N], at: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..W * size_of::<N>()).step_by(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: fetching reads nothing and faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at).cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, at);
}

/// How many bytes ahead of its turn a weight is fetched while few rows read it: what the processor does alone ends at each
/// page. A Xeon gains by a page (more gave nothing, less was not tried); an EPYC (Zen 3) by less, and a page ahead is slower
/// there than nothing.
pub(crate) fn distance() -> usize {
    const PAGE: usize = 4096;
    const WITHIN_A_PAGE: usize = 1536;
    static DISTANCE: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *DISTANCE.get_or_init(|| if made_by_amd() { WITHIN_A_PAGE } else { PAGE })
}

#[cfg(target_arch = "x86_64")]
fn made_by_amd() -> bool {
    let told = std::arch::x86_64::__cpuid(0);
    [told.ebx, told.edx, told.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn made_by_amd() -> bool {
    false
}
