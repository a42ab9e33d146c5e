//! From a kernel file to code in a context: the embedded fat binary, or NVRTC with a cache on disk.
//!
//! An entry of the cache is the SHA-256 of its code, then the code; one that does not agree with itself is compiled anew. The cache
//! only saves time: what cannot be read or written is compiled, and no error.

use super::library::{self, NVRTC, driver};
use crate::error::{KernelError, Result};
use crate::plan::Target;
use crate::source::{File, source};
use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaModule, DriverError};
use cudarc::nvrtc::{Ptx, result, sys};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::env;
use std::ffi::{CString, c_char, c_int};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const DIGEST: usize = 32;

/// The kernel files that are loaded into a context.
#[derive(Debug)]
pub(super) struct Modules {
    context: Arc<CudaContext>,
    architecture: String,
    driver: c_int,
    loaded: Mutex<HashMap<File, Arc<CudaModule>>>,
}

impl Modules {
    pub(super) fn new(context: Arc<CudaContext>, target: Target, driver: c_int) -> Self {
        Self { context, architecture: architecture(target), driver, loaded: Mutex::default() }
    }

    /// The module of a file, loaded or compiled if it is the first time.
    pub(super) fn get(&self, file: File) -> Result<Arc<CudaModule>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&file) {
            return Ok(Arc::clone(module));
        }
        let module = match self.embedded(file)? {
            Some(module) => module,
            None => self.compiled(file)?,
        };
        loaded.insert(file, Arc::clone(&module));
        Ok(module)
    }

    /// The fat binary, where one was built that has code for this GPU.
    fn embedded(&self, file: File) -> Result<Option<Arc<CudaModule>>> {
        let code = file.fat_binary();
        if code.is_empty() {
            return Ok(None);
        }
        match self.context.load_module(Ptx::from_binary(code.to_vec())) {
            Ok(module) => Ok(Some(module)),
            Err(DriverError(
                CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
                | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
                | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND,
            )) => Ok(None),
            Err(error) => Err(driver("cuModuleLoadData")(error)),
        }
    }

    fn compiled(&self, file: File) -> Result<Arc<CudaModule>> {
        let entry = Entry::new(cache_dir().as_deref(), file, &self.architecture, self.driver)?;
        if let Some(code) = entry.read()
            && let Ok(module) = self.context.load_module(Ptx::from_binary(code))
        {
            return Ok(module);
        }
        let code = compile(file, &self.architecture)?;
        entry.write(&code);
        self.context.load_module(Ptx::from_binary(code)).map_err(driver("cuModuleLoadData"))
    }
}

/// The name of a GPU's architecture for a compiler. Those of the H100 get all its instructions.
pub(super) fn architecture(target: Target) -> String {
    let all = if target.capability == 90 { "a" } else { "" };
    format!("sm_{}{all}", target.capability)
}

/// A program of NVRTC.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program comes from `create_program` and is destroyed once. There is nobody to tell of a failure.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn nvrtc(call: &'static str) -> impl Fn(result::NvrtcError) -> KernelError {
    move |error| KernelError::Cuda { call, code: error.to_string() }
}

fn options(architecture: &str) -> [String; 3] {
    [
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        "--generate-line-info".to_owned(),
    ]
}

/// Compiles a kernel file to the machine code of an architecture such as `sm_80` or `sm_90a`.
///
/// Needs the library NVRTC, but neither a driver nor a GPU.
///
/// # Errors
/// [`KernelError::CudaUnavailable`] without NVRTC, [`KernelError::Compile`] with the compiler's log.
pub fn compile(file: File, architecture: &str) -> Result<Vec<u8>> {
    library::require(&NVRTC)?;
    let text = CString::new(source(file)).map_err(|_| KernelError::Compile {
        file: file.name(),
        log: "the source has a zero byte".to_owned(),
    })?;
    let name = CString::new(format!("{}.cu", file.name())).unwrap_or_default();
    let program = Program(result::create_program(&text, Some(&name)).map_err(nvrtc("nvrtcCreateProgram"))?);
    // SAFETY: the program was created above and lives to the end of the function.
    if let Err(error) = unsafe { result::compile_program(program.0, &options(architecture)) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().flat_map(c_char::to_ne_bytes).filter(|&byte| byte != 0).collect();
        let log = String::from_utf8_lossy(&log).trim().to_owned();
        let log = if log.is_empty() { error.to_string() } else { log };
        return Err(KernelError::Compile { file: file.name(), log });
    }
    let mut size = 0;
    // SAFETY: the program was compiled above.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) }
        .result()
        .map_err(nvrtc("nvrtcGetCUBINSize"))?;
    let mut code = vec![0u8; size];
    // SAFETY: `code` has the size that NVRTC asked for.
    unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) }
        .result()
        .map_err(nvrtc("nvrtcGetCUBIN"))?;
    Ok(code)
}

/// The version of NVRTC.
pub(super) fn nvrtc_version() -> Result<(c_int, c_int)> {
    library::require(&NVRTC)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are ints to write to.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().map_err(nvrtc("nvrtcVersion"))?;
    Ok((major, minor))
}

/// `FWD_KERNEL_CACHE`, or `fwd-prompt/kernels` in the user's folder for caches.
fn cache_dir() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("FWD_KERNEL_CACHE").or_else(|| {
        let caches = folder("XDG_CACHE_HOME")
            .or_else(|| folder("LOCALAPPDATA"))
            .or_else(|| folder("HOME").map(|home| home.join(".cache")));
        Some(caches?.join("fwd-prompt").join("kernels"))
    })
}

/// A place in the cache. Whatever the code depends on is part of its name.
struct Entry {
    path: Option<PathBuf>,
}

impl Entry {
    fn new(dir: Option<&Path>, file: File, architecture: &str, driver: c_int) -> Result<Self> {
        let (major, minor) = nvrtc_version()?;
        let compiler = format!("NVRTC {major}.{minor}, driver {driver}");
        Ok(Self { path: dir.map(|dir| dir.join(entry_name(file, architecture, &compiler))) })
    }

    fn read(&self) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.path.as_ref()?).ok()?;
        let (digest, code) = bytes.split_at_checked(DIGEST)?;
        (Sha256::digest(code).as_slice() == digest).then(|| code.to_vec())
    }

    fn write(&self, code: &[u8]) {
        let Some(path) = &self.path else { return };
        // Without the file the next start compiles again: no reason to stop this one.
        let _ = write_atomically(path, code);
    }
}

fn entry_name(file: File, architecture: &str, compiler: &str) -> String {
    let mut hash = Sha256::new();
    let options = options(architecture).join(" ");
    for part in [source(file).as_str(), options.as_str(), compiler] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{architecture}-{digest}.cubin", file.name())
}

fn write_atomically(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&Sha256::digest(code))?;
    file.write_all(code)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_entry_comes_back_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deeper").join(entry_name(File::Norm, "sm_90a", "NVRTC 13.0"));
        let entry = Entry { path: Some(path.clone()) };
        assert_eq!(entry.read(), None);
        entry.write(b"machine code");
        assert_eq!(entry.read().as_deref(), Some(&b"machine code"[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(entry.read(), None);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(entry.read(), None);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let entry = Entry { path: Some(file.join("entry")) };
        entry.write(b"code");
        assert_eq!(entry.read(), None);
    }

    #[test]
    fn whatever_the_code_depends_on_changes_the_name() {
        let name = entry_name(File::Norm, "sm_90a", "NVRTC 13.0, driver 13000");
        assert_eq!(name, entry_name(File::Norm, "sm_90a", "NVRTC 13.0, driver 13000"));
        for other in [
            entry_name(File::Norm, "sm_80", "NVRTC 13.0, driver 13000"),
            entry_name(File::Norm, "sm_90a", "NVRTC 13.2, driver 13000"),
            entry_name(File::Softmax, "sm_90a", "NVRTC 13.0, driver 13000"),
        ] {
            assert_ne!(name, other);
        }
    }

    #[test]
    fn an_h100_gets_all_its_instructions() {
        assert_eq!(architecture(Target::H100), "sm_90a");
        assert_eq!(architecture(Target::A100), "sm_80");
    }
}
