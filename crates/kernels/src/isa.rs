//! The instruction set, chosen once per process, and the macro that compiles one body for each of
//! them.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

/// An instruction set for which the kernels are compiled. Later variants include the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every CPU of the target has; multiply and add round separately.
    Scalar,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with `vdpbf16ps`, which multiplies pairs of bf16, and VNNI, which multiplies integers.
    Avx512Bf16,
    /// The same with FP16, which multiplies f16 at twice the rate of f32. What is measured to be slow on some processors that
    /// have it, pairs of bf16, is left alone: as [`Isa::Avx512`] but for frozen weights under bf16 compute.
    Avx512Fp16,
    /// The same with AMX, which multiplies tiles of pairs of bf16.
    Amx,
}

/// The vectors of an instruction set: all that most kernels ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// What every CPU of the target has.
    Plain,
    /// 256 bits, with fused multiply-add.
    Avx2,
    /// 512 bits.
    Avx512,
}

/// The name of the environment variable that forces an instruction set.
pub const ISA_VARIABLE: &str = "SIBO_ISA";

impl Isa {
    /// All instruction sets, weakest first.
    pub const ALL: [Isa; 6] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Avx512Fp16, Isa::Amx];

    /// The word that names it, on the command line and in run records.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512Fp16 => "avx512fp16",
            Isa::Amx => "amx",
        }
    }

    /// What its kernels for f32 are compiled for.
    pub fn vectors(self) -> Vectors {
        match self {
            Isa::Scalar => Vectors::Plain,
            Isa::Avx2 => Vectors::Avx2,
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Avx512Fp16 | Isa::Amx => Vectors::Avx512,
        }
    }

    /// Whether it multiplies pairs of bf16. Where that is slower than f32, [`usual`] avoids it.
    pub fn has_bf16(self) -> bool {
        matches!(self, Isa::Avx512Bf16 | Isa::Amx)
    }

    /// Whether bf16 compute makes it faster.
    pub fn prefers_bf16(self) -> bool {
        self >= Isa::Avx512Bf16
    }

    /// Whether this CPU (and its operating system) can run it.
    pub fn is_available(self) -> bool {
        // A virtual machine may show tiles and hide this.
        self <= best() && (self != Isa::Avx512Fp16 || has_fp16())
    }

    /// The instruction sets that this machine can run, weakest first.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|i| i.is_available()).collect()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The best instruction set that this CPU has.
pub fn best() -> Isa {
    static BEST: OnceLock<Isa> = OnceLock::new();
    *BEST.get_or_init(detect)
}

/// What has to be measured before it is taken, first what is taken first: pairs before f16, since they are summed in f32.
const MEASURED: [Isa; 2] = [Isa::Avx512Bf16, Isa::Avx512Fp16];

/// The instruction set where nobody asks for one: the best, unless there are no tiles and pairs of bf16 are slower than f32
/// (as on Xeons of the fourth and fifth generation whose AMX is hidden from a virtual machine).
pub fn usual() -> Isa {
    static USUAL: OnceLock<Isa> = OnceLock::new();
    *USUAL.get_or_init(|| match best() {
        best if MEASURED.contains(&best) => {
            let pays = |isa: &Isa| isa.is_available() && crate::peak::faster_than_f32(*isa);
            MEASURED.into_iter().find(pays).unwrap_or(Isa::Avx512)
        }
        best => best,
    })
}

/// The instruction sets that this CPU has and that [`usual`] found slower than f32.
pub fn passed_over() -> Vec<Isa> {
    let usual = usual();
    let slow = |isa: &Isa| isa.is_available() && (usual == Isa::Avx512 || *isa < usual);
    match MEASURED.contains(&best()) {
        true => MEASURED.into_iter().filter(slow).collect(),
        false => Vec::new(),
    }
}

#[cfg(target_arch = "x86_64")]
fn has_fp16() -> bool {
    is_x86_feature_detected!("avx512fp16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fp16() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let pairs = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
    match (avx2, avx512, avx512 && pairs) {
        (_, _, true) if tiles::usable() => Isa::Amx,
        (_, _, true) if has_fp16() => Isa::Avx512Fp16,
        (_, _, true) => Isa::Avx512Bf16,
        (_, true, _) => Isa::Avx512,
        (true, _, _) => Isa::Avx2,
        _ => Isa::Scalar,
    }
}

/// AMX: `is_x86_feature_detected!` does not know it on stable Rust, and Linux gives its registers only to a process that
/// has asked for them.
#[cfg(target_arch = "x86_64")]
mod tiles {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    /// Whether the CPU multiplies tiles of bf16 and the system lets this process do it. The permission is the
    /// process's: threads that exist already have it too.
    pub(super) fn usable() -> bool {
        cpu_has() && permitted()
    }

    fn cpu_has() -> bool {
        const OS_SAVES: u32 = 1 << 27;
        const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
        const TILE_STATE: u64 = 1 << 17 | 1 << 18;
        if __cpuid(0).eax < 7 || __cpuid(1).ecx & OS_SAVES == 0 {
            return false;
        }
        // SAFETY: the system has switched the instruction on (OSXSAVE).
        let saved = unsafe { enabled_state() };
        __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES && saved & TILE_STATE == TILE_STATE
    }

    #[target_feature(enable = "xsave")]
    fn enabled_state() -> u64 {
        // SAFETY: register 0 exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }

    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: the call reads two numbers and touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}

/// Reads the request in the environment variable [`ISA_VARIABLE`].
///
/// # Errors
/// A sentence for the user, when the variable holds an unknown word or an instruction set that this
/// CPU lacks. The command line calls this first, so that [`isa`] need not fail later.
pub fn check() -> Result<Isa, String> {
    match std::env::var(ISA_VARIABLE) {
        Err(_) => Ok(usual()),
        Ok(word) => Ok(parse_request(&word, &Isa::available())?.unwrap_or_else(usual)),
    }
}

/// What the word asks for; an empty one asks for nothing.
fn parse_request(word: &str, available: &[Isa]) -> Result<Option<Isa>, String> {
    // Some write avx512-bf16.
    let word = word.trim().to_ascii_lowercase().replace(['-', '_'], "");
    if word.is_empty() {
        return Ok(None);
    }
    let names = Isa::ALL.map(Isa::name).join(", ");
    let Some(asked) = Isa::ALL.into_iter().find(|isa| isa.name() == word) else {
        return Err(format!("{ISA_VARIABLE}={word} names no instruction set; the words are {names}"));
    };
    if !available.contains(&asked) {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        let names = names.join(", ");
        return Err(format!(
            "{ISA_VARIABLE}={word} asks for an instruction set that this CPU lacks; it has {names}"
        ));
    }
    Ok(Some(asked))
}

thread_local! {
    static FORCED: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// The instruction set in use: the one asked for by [`ISA_VARIABLE`], or the [`usual`] one.
///
/// An operation reads this once, on the caller's thread, and hands the value to its tasks.
/// A request that [`check`] refuses counts as no request.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    FORCED.get().unwrap_or_else(|| *CHOSEN.get_or_init(|| check().unwrap_or_else(|_| usual())))
}

/// Runs `work` with another instruction set for the operations that it calls on this thread (for
/// tests and measurements).
///
/// # Panics
/// When the CPU lacks `isa`: running its code would be undefined.
pub fn with_isa<T>(isa: Isa, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    assert!(isa.is_available(), "this CPU cannot run {isa} code");
    let _restore = Restore(FORCED.replace(Some(isa)));
    work()
}

/// The number of threads of the current `rayon` pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` on a pool of `threads` threads of its own, this one among them; whatever it computes uses those only.
///
/// Made for a thread that does nothing else: it stays with its pool until it ends.
pub fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).use_current_thread().build();
    match pool {
        Ok(pool) => pool.install(work),
        // The system gives no more threads: the pool that is there serves as well, for the number changes no bit.
        Err(_) => work(),
    }
}

/// Defines a function that runs one body under the instruction set given as its first argument.
///
/// `fn name(args) -> R = body;` gives `fn name(isa: Isa, args) -> R`. The body is an
/// `#[inline(always)]` function with a leading `const FMA: bool`, so that it is compiled (and
/// vectorised) once for each instruction set; `FMA` says whether [`crate::math::madd`] may fuse.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: the caller's promise.
                    unsafe { $body::<true>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                unsafe fn avx512($($arg: $ty),*) {
                    // SAFETY: the caller's promise.
                    unsafe { $body::<true>($($arg),*) }
                }
                // SAFETY: the caller's promise; and an `Isa` that reaches a kernel comes from
                // `isa()`, which answers (and `with_isa` accepts) only what
                // `detect` has found on this CPU.
                unsafe {
                    match isa.vectors() {
                        $crate::isa::Vectors::Plain => {}
                        $crate::isa::Vectors::Avx2 => return avx2($($arg),*),
                        $crate::isa::Vectors::Avx512 => return avx512($($arg),*),
                    }
                }
            }
            let _ = isa;
            // SAFETY: the caller's promise.
            unsafe { $body::<false>($($arg),*) }
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?
     = $body:ident) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match isa.vectors() {
                    $crate::isa::Vectors::Plain => {}
                    // SAFETY: an `Isa` that reaches a kernel comes from `isa()`, which answers (and
                    // `with_isa` accepts) only what `detect` has found.
                    $crate::isa::Vectors::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Vectors::Avx512 => return unsafe { avx512($($arg),*) },
                }
            }
            let _ = isa;
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_or_refused_with_a_sentence() {
        assert_eq!(parse_request("avx2", &Isa::ALL[..3]), Ok(Some(Isa::Avx2)));
        assert_eq!(parse_request(" Scalar ", &Isa::ALL[..2]), Ok(Some(Isa::Scalar)));
        assert_eq!(parse_request("AVX512-BF16", &Isa::ALL), Ok(Some(Isa::Avx512Bf16)));
        assert_eq!(parse_request("", &Isa::ALL[..2]), Ok(None));
        let unknown = parse_request("sse9", &Isa::ALL[..3]).unwrap_err();
        assert!(unknown.contains("sse9") && unknown.contains("avx512bf16, avx512fp16, amx"));
        let lacking = parse_request("avx512", &Isa::ALL[..2]).unwrap_err();
        assert!(lacking.contains("lacks") && lacking.contains("scalar, avx2"));
        let hidden = [&Isa::ALL[..4], &Isa::ALL[5..]].concat();
        assert!(parse_request("avx512fp16", &hidden).is_err(), "tiles do not make up for what is hidden");
    }

    #[test]
    fn what_is_usual_is_the_best_or_what_was_not_passed_over() {
        assert!(!passed_over().contains(&usual()) && passed_over().iter().all(|isa| isa.is_available()));
        match best() {
            Isa::Avx512Bf16 | Isa::Avx512Fp16 => assert!(usual() >= Isa::Avx512 && usual() <= best()),
            best => assert_eq!(usual(), best),
        }
    }

    #[test]
    fn forcing_ends_with_the_closure() {
        let before = isa();
        assert_eq!(with_isa(Isa::Scalar, isa), Isa::Scalar);
        assert_eq!(isa(), before);
    }
}
