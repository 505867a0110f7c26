//! The functions of libc whose place this library takes.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of libc, looked up when it is first needed.
pub(crate) struct Real {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Real {
        Real { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address.
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name ends with a zero byte, and dlsym only reads it.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            crate::recorder::die(&format!("libc has no {}", self.name.to_string_lossy()));
        }
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// Calls the function of libc with this name and type.
macro_rules! real {
    ($name:ident($($argument:expr => $kind:ty),*) -> $result:ty) => {{
        static REAL: $crate::real::Real = $crate::real::Real::new(
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name holds no zero byte"),
            },
        );
        // SAFETY: libc's function of this name has this type, as its manual page says; the arguments are those that our
        // caller has passed to the same function.
        unsafe {
            let real: unsafe extern "C" fn($($kind),*) -> $result = std::mem::transmute(REAL.address());
            real($($argument),*)
        }
    }};
}
pub(crate) use real;
