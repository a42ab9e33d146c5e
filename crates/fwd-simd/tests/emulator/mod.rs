//! The tile instructions of AMX-BF16 on a processor that lacks them: a handler of SIGILL decodes the instruction, carries it out on tiles in
//! memory, and goes on behind it.
//!
//! The definitions are those of the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (LDTILECFG, TILELOADD,
//! TILESTORED, TILEZERO, TILERELEASE, TDPBF16PS). What would fault there ends the test with a line on standard error.

use std::cell::UnsafeCell;
use std::sync::Once;

/// `[base + index · scale + displacement]`; registers are numbered as they are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) base: Option<usize>,
    pub(crate) index: Option<usize>,
    pub(crate) scale: usize,
    pub(crate) displacement: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instruction {
    LoadConfig(Address),
    Release,
    Zero(usize),
    Load(usize, Address),
    Store(Address, usize),
    /// `to += a·b`
    Dot {
        to: usize,
        a: usize,
        b: usize,
    },
}

/// The instruction whose bytes `byte` gives, and its length.
pub(crate) fn decode(byte: impl Fn(usize) -> u8) -> Option<(Instruction, usize)> {
    // VEX with three bytes, map 0F38, W 0, 128 bits.
    let (b1, b2) = (byte(1), byte(2));
    if byte(0) != 0xc4 || b1 & 0x1f != 2 || b2 & 0x84 != 0 {
        return None;
    }
    let extend = |bit: u8| usize::from(b1 >> bit & 1 == 0) * 8;
    let (prefix, opcode, modrm) = (b2 & 3, byte(3), byte(4));
    let (mode, reg, rm) = (modrm >> 6, usize::from(modrm >> 3 & 7), usize::from(modrm & 7));
    let vvvv = usize::from(!(b2 >> 3) & 15);
    if mode == 3 {
        let instruction = match (opcode, prefix, reg, rm) {
            (0x49, 0, 0, 0) => Instruction::Release,
            (0x49, 3, tile, 0) => Instruction::Zero(tile),
            (0x5c, 2, to, a) if vvvv < 8 => Instruction::Dot { to, a, b: vvvv },
            _ => return None,
        };
        return Some((instruction, 5));
    }
    let mut length = 5;
    let mut address = Address { base: Some(rm + extend(5)), index: None, scale: 1, displacement: 0 };
    if rm == 4 {
        let sib = byte(5);
        length = 6;
        address.base = Some(usize::from(sib & 7) + extend(5));
        address.index = Some(usize::from(sib >> 3 & 7) + extend(6)).filter(|&index| index != 4);
        address.scale = 1 << (sib >> 6);
        if sib & 7 == 5 && mode == 0 {
            return None;
        }
    } else if rm == 5 && mode == 0 {
        return None;
    }
    if mode == 1 {
        address.displacement = i32::from(byte(length) as i8);
        length += 1;
    } else if mode == 2 {
        address.displacement = i32::from_le_bytes(std::array::from_fn(|i| byte(length + i)));
        length += 4;
    }
    let instruction = match (opcode, prefix, reg, rm) {
        (0x49, 0, 0, _) => Instruction::LoadConfig(address),
        (0x4b, 3, tile, 4) => Instruction::Load(tile, address),
        (0x4b, 2, tile, 4) => Instruction::Store(address, tile),
        _ => return None,
    };
    Some((instruction, length))
}

/// The tiles of a thread.
struct Tiles {
    configured: bool,
    rows: [usize; 8],
    row_bytes: [usize; 8],
    data: [[[u8; 64]; 16]; 8],
}

thread_local! {
    static TILES: UnsafeCell<Tiles> = const {
        UnsafeCell::new(Tiles { configured: false, rows: [0; 8], row_bytes: [0; 8], data: [[[0; 64]; 16]; 8] })
    };
}

/// Whether the tiles of this thread are in their initial state.
pub(crate) fn is_released() -> bool {
    // SAFETY: the handler runs on this thread alone, and not within this function.
    TILES.with(|tiles| unsafe { !(*tiles.get()).configured })
}

/// Handles illegal instructions of this process from now on.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a zeroed `sigaction` is a valid one, and the handler has the signature that `SA_SIGINFO` asks for.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_illegal_instruction;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        }
    });
}

fn fail(message: &str) -> ! {
    // SAFETY: both may be called in a handler.
    unsafe {
        libc::write(2, message.as_ptr().cast(), message.len());
        libc::write(2, c"\n".as_ptr().cast(), 1);
        libc::abort()
    }
}

fn require(holds: bool, message: &str) {
    if !holds {
        fail(message);
    }
}

/// General registers in the order of their encoding.
const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_illegal_instruction(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the context of the thread that it interrupted, whose instruction pointer is at an instruction. The tiles
    // are this thread's, and the code that was interrupted is not the emulator's.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        let Some((instruction, length)) = decode(|i| at.add(i).read()) else {
            fail("an illegal instruction that is none of the tiles'");
        };
        TILES.with(|tiles| {
            (*tiles.get()).run(instruction, |register| registers[REGISTERS[register] as usize])
        });
        registers[libc::REG_RIP as usize] += length as i64;
    }
}

impl Tiles {
    /// # Safety
    /// The memory that the instruction names may be read or written.
    unsafe fn run(&mut self, instruction: Instruction, register: impl Fn(usize) -> i64) {
        let start = |address: Address| address.base.map_or(0, &register) + i64::from(address.displacement);
        let stride = |address: Address| address.index.map_or(0, &register) * address.scale as i64;
        if !matches!(instruction, Instruction::LoadConfig(_) | Instruction::Release) {
            require(self.configured, "tiles that are not configured");
        }
        match instruction {
            Instruction::LoadConfig(address) => {
                require(address.index.is_none(), "a configuration at an index");
                // SAFETY: as the caller says.
                self.configure(unsafe { &*(start(address) as *const [u8; 64]) });
            }
            Instruction::Release => {
                self.configured = false;
                self.data = [[[0; 64]; 16]; 8];
            }
            Instruction::Zero(tile) => {
                self.check(tile);
                self.data[tile] = [[0; 64]; 16];
            }
            Instruction::Load(tile, address) => {
                self.check(tile);
                self.data[tile] = [[0; 64]; 16];
                for row in 0..self.rows[tile] {
                    let from = (start(address) + row as i64 * stride(address)) as *const u8;
                    let to = &mut self.data[tile][row];
                    // SAFETY: as the caller says.
                    unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), self.row_bytes[tile]) };
                }
            }
            Instruction::Store(address, tile) => {
                self.check(tile);
                for row in 0..self.rows[tile] {
                    let to = (start(address) + row as i64 * stride(address)) as *mut u8;
                    // SAFETY: as the caller says.
                    unsafe {
                        to.copy_from_nonoverlapping(self.data[tile][row].as_ptr(), self.row_bytes[tile])
                    };
                }
            }
            Instruction::Dot { to, a, b } => self.dot(to, a, b),
        }
    }

    fn check(&self, tile: usize) {
        require(self.rows[tile] > 0 && self.row_bytes[tile] > 0, "a tile without rows");
    }

    fn configure(&mut self, config: &[u8; 64]) {
        require(config[0] == 1 && config[1..16] == [0; 15], "not palette 1 from row 0");
        require(config[32..48] == [0; 16] && config[56..] == [0; 8], "more than eight tiles");
        for tile in 0..8 {
            let row_bytes = u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]);
            let rows = config[48 + tile];
            require(
                rows <= 16 && row_bytes <= 64 && (rows == 0) == (row_bytes == 0),
                "a tile that is too large",
            );
            (self.rows[tile], self.row_bytes[tile]) = (usize::from(rows), usize::from(row_bytes));
        }
        self.configured = true;
        self.data = [[[0; 64]; 16]; 8];
    }

    fn dot(&mut self, to: usize, a: usize, b: usize) {
        for tile in [to, a, b] {
            self.check(tile);
            require(self.row_bytes[tile].is_multiple_of(4), "a row of broken pairs");
        }
        require(to != a && to != b && a != b, "a tile that is used twice");
        require(
            self.rows[to] == self.rows[a]
                && self.row_bytes[to] == self.row_bytes[b]
                && self.row_bytes[a] == 4 * self.rows[b],
            "tiles that do not fit",
        );
        for row in 0..self.rows[to] {
            let mut sums = [[0f32; 2]; 16];
            for pair in 0..self.rows[b] {
                for (col, sums) in sums[..self.row_bytes[to] / 4].iter_mut().enumerate() {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let factor = bf16_at(&self.data[a][row], 2 * pair + i);
                        *sum = flush(factor.mul_add(bf16_at(&self.data[b][pair], 2 * col + i), *sum));
                    }
                }
            }
            for (col, sums) in sums[..self.row_bytes[to] / 4].iter().enumerate() {
                let bytes = &mut self.data[to][row][4 * col..][..4];
                let old = flush(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                bytes.copy_from_slice(&flush(old + flush(sums[0] + sums[1])).to_le_bytes());
            }
        }
        self.data[to][self.rows[to]..].fill([0; 64]);
    }
}

fn bf16_at(row: &[u8; 64], i: usize) -> f32 {
    flush(f32::from_le_bytes([0, 0, row[2 * i], row[2 * i + 1]]))
}

/// Subnormals are zeros.
fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

mod tests {
    use super::{Address, Instruction, decode};

    std::arch::global_asm!(
        ".global fwd_simd_tile_samples",
        ".global fwd_simd_tile_samples_end",
        "fwd_simd_tile_samples:",
        "ldtilecfg [rax]",
        "ldtilecfg [r13]",
        "ldtilecfg [rsp + 64]",
        "ldtilecfg [r9 - 4096]",
        "tilezero tmm0",
        "tilezero tmm7",
        "tileloadd tmm6, [rdx + rcx*2]",
        "tileloadd tmm7, [r12 + r15*4 + 64]",
        "tileloadd tmm5, [r13 + r8*1 + 1024]",
        "tilestored [rbp + rsi*4 + 64], tmm3",
        "tilestored [r10 + rbp*8], tmm1",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7",
        "tilerelease",
        "fwd_simd_tile_samples_end:",
    );

    unsafe extern "C" {
        static fwd_simd_tile_samples: u8;
        static fwd_simd_tile_samples_end: u8;
    }

    #[test]
    fn what_the_assembler_makes_is_decoded() {
        let at = |base, index: Option<usize>, scale, displacement| Address {
            base: Some(base),
            index,
            scale,
            displacement,
        };
        let want = [
            Instruction::LoadConfig(at(0, None, 1, 0)),
            Instruction::LoadConfig(at(13, None, 1, 0)),
            Instruction::LoadConfig(at(4, None, 1, 64)),
            Instruction::LoadConfig(at(9, None, 1, -4096)),
            Instruction::Zero(0),
            Instruction::Zero(7),
            Instruction::Load(6, at(2, Some(1), 2, 0)),
            Instruction::Load(7, at(12, Some(15), 4, 64)),
            Instruction::Load(5, at(13, Some(8), 1, 1024)),
            Instruction::Store(at(5, Some(6), 4, 64), 3),
            Instruction::Store(at(10, Some(5), 8, 0), 1),
            Instruction::Dot { to: 0, a: 4, b: 6 },
            Instruction::Dot { to: 3, a: 5, b: 7 },
            Instruction::Release,
        ];
        let (first, end) = (&raw const fwd_simd_tile_samples, &raw const fwd_simd_tile_samples_end);
        let n = end as usize - first as usize;
        // SAFETY: the assembly above lies between the two labels.
        let bytes = unsafe { std::slice::from_raw_parts(first, n) };
        let (mut got, mut at) = (Vec::new(), 0);
        while at < n {
            let (instruction, length) = decode(|i| bytes[at + i]).expect("an instruction of tiles");
            got.push(instruction);
            at += length;
        }
        assert_eq!(got, want);
        assert_eq!(decode(|_| 0x0f), None);
    }
}
