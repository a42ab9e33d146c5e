// Runs a grid of CUDA threads as fibres of one operating-system thread, one cluster of blocks after the other.
//
// Reports, instead of crashing: accesses outside of a buffer (guard pages) or of a local array (trap), writes to inputs (read-only pages),
// barriers that not all threads reach, warp primitives that not all lanes reach, shared memory beyond the launch's size.
#include "common.cuh"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
#include <sys/mman.h>
#include <unistd.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulation {

thread_local Place* here = nullptr;

namespace {

constexpr size_t STACK = 256 * 1024;

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

enum class State { Ready, Waiting, Done };

#ifdef __x86_64__
extern "C" void fwd_switch(void** save, void* load);
asm(R"(
.text
.type fwd_switch,@function
fwd_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fwd_switch,.-fwd_switch
)");
struct Context {
    void* stack_pointer = nullptr;
};
void change(Context& from, Context& to) { fwd_switch(&from.stack_pointer, to.stack_pointer); }
void prepare(Context& context, char* stack, void (*entry)()) {
    auto* top = reinterpret_cast<void**>(stack + STACK);
    *--top = nullptr;  // the return address of `entry`, which never returns; keeps the stack aligned as after a call
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.stack_pointer = top;
}
#else
struct Context {
    ucontext_t context;
};
void change(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context.context);
    context.context.uc_stack.ss_sp = stack;
    context.context.uc_stack.ss_size = STACK;
    context.context.uc_link = nullptr;
    makecontext(&context.context, entry, 0);
}
#endif

struct Fibre : Place {
    Context context;
    std::unique_ptr<char[]> stack;
    State state;
    Barrier barrier;
    std::vector<Copy> pending;
    std::vector<std::vector<Copy>> groups;
};

struct Guarded {
    unsigned char *mapping, *start;
    size_t mapped, bytes;
    const char* name;
};

struct Emulator {
    std::vector<std::unique_ptr<Fibre>> fibres;
    unsigned n_threads = 0, n_ranks = 0;  // of a block; of a cluster
    std::vector<unsigned char*> shared;
    std::vector<unsigned char> slots;  // 64 bytes a fibre
    Context scheduler;
    Function function = nullptr;
    void** arguments = nullptr;
    std::string failure;
    std::vector<Guarded> guarded;
};
thread_local Emulator emulator;

struct Kernel {
    Function function;
    std::string signature;
};
std::unordered_map<std::string, Kernel>& functions() {
    static std::unordered_map<std::string, Kernel> table;
    return table;
}

Fibre& fibre() { return *static_cast<Fibre*>(here); }
// A fibre's address is that of its `Place`, so its number is found by its place in the grid.
unsigned number(const Place& place) { return place.rank * place.n_threads.x + place.thread.x; }

void enter() {
    Emulator& e = emulator;
    e.function(e.arguments);
    Fibre& f = fibre();
    f.state = State::Done;
    change(f.context, e.scheduler);
    std::abort();
}

struct sigaction before[NSIG];

void on_signal(int signal, siginfo_t* info, void* context) {
    if (!here) {  // not ours
        struct sigaction& old = before[signal];
        if (old.sa_flags & SA_SIGINFO && old.sa_sigaction) return old.sa_sigaction(signal, info, context);
        sigaction(signal, &old, nullptr);
        return;
    }
    if (signal == SIGILL || signal == SIGTRAP) fail("index outside of an array");
    if (signal == SIGFPE) fail("division by zero");
    auto* address = static_cast<unsigned char*>(info->si_addr);
    char message[256];
    for (const Guarded& g : emulator.guarded) {
        if (address < g.mapping || address >= g.mapping + g.mapped) continue;
        ptrdiff_t offset = address - g.start;
        if (offset >= 0 && offset < static_cast<ptrdiff_t>(g.bytes)) {
            std::snprintf(message, sizeof message, "write to %s, which is an input, at byte %td", g.name, offset);
        } else {
            std::snprintf(message, sizeof message, "access to byte %td of %s, which has %zu", offset, g.name, g.bytes);
        }
        fail(message);
    }
    fail("access to memory that is no buffer");
}

void catch_signals() {
    static bool done = [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_NODEFER;  // `fail` leaves the handler by a change of stacks
        for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE}) sigaction(signal, &action, &before[signal]);
        return true;
    }();
    (void)done;
}

Guarded guard(size_t bytes, const char* name) {
    const size_t page = sysconf(_SC_PAGESIZE);
    // The end of the buffer lies at the guard page, but for what alignment to 16 bytes leaves.
    size_t rounded = (bytes + 15) / 16 * 16, body = (rounded + page - 1) / page * page, mapped = body + 2 * page;
    void* mapping = mmap(nullptr, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return {};
    auto* base = static_cast<unsigned char*>(mapping);
    if (body && mprotect(base + page, body, PROT_READ | PROT_WRITE)) return {};
    Guarded g{base, base + page + body - rounded, mapped, bytes, name};
    if (body) std::memset(base + page, 0xff, body);
    return g;
}

// Whether the bytes around a buffer that are no guard page are as they were.
bool intact(const Guarded& g) {
    const size_t page = sysconf(_SC_PAGESIZE);
    auto untouched = [](const unsigned char* from, const unsigned char* to) {
        return std::all_of(from, to, [](unsigned char byte) { return byte == 0xff; });
    };
    return untouched(g.mapping + page, g.start) && untouched(g.start + g.bytes, g.mapping + g.mapped - page);
}

// Wakes those whose barrier is complete. False if there was none.
bool release() {
    Emulator& e = emulator;
    bool any = false;
    const unsigned total = e.n_threads * e.n_ranks;
    auto try_release = [&](unsigned first, unsigned n, Barrier barrier) {
        bool all = true;
        for (unsigned i = first; i < first + n; ++i) {
            all = all && e.fibres[i]->state == State::Waiting && e.fibres[i]->barrier == barrier;
        }
        if (!all) return;
        for (unsigned i = first; i < first + n; ++i) e.fibres[i]->state = State::Ready;
        any = true;
    };
    for (unsigned i = 0; i < total; i += 32) try_release(i, 32, Barrier::Warp);
    for (unsigned i = 0; i < total; i += e.n_threads) try_release(i, e.n_threads, Barrier::Block);
    try_release(0, total, Barrier::Cluster);
    return any;
}

void run_cluster(const std::vector<unsigned>& order) {
    Emulator& e = emulator;
    for (;;) {
        bool ran = false;
        size_t done = 0;
        for (unsigned i : order) {
            Fibre& f = *e.fibres[i];
            if (f.state == State::Ready) {
                ran = true;
                here = &f;
                change(e.scheduler, f.context);
                here = nullptr;
                if (!e.failure.empty()) return;
            }
            done += f.state == State::Done;
        }
        if (done == order.size()) return;
        if (!ran && !release()) {
            const char* what = done ? "a barrier that finished threads do not reach" : "a barrier or warp primitive that not all threads reach";
            e.failure = what;
            return;
        }
    }
}

std::vector<unsigned> order_of(unsigned n, int order) {
    std::vector<unsigned> list(n);
    for (unsigned i = 0; i < n; ++i) list[i] = order == 1 ? n - 1 - i : i;
    uint64_t state = order;
    for (unsigned i = n; order > 1 && i > 1; --i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::swap(list[i - 1], list[(state >> 33) % i]);
    }
    return list;
}

}  // namespace

Register::Register(const char* name, Function function, const char* signature) { functions()[name] = {function, signature}; }

void wait(Barrier barrier) {
    Fibre& f = fibre();
    f.state = State::Waiting;
    f.barrier = barrier;
    change(f.context, emulator.scheduler);
}

void fail(const char* message) {
    Fibre& f = fibre();
    char where[96];
    std::snprintf(where, sizeof where, " (block %u,%u,%u, thread %u)", f.block.x, f.block.y, f.block.z, f.thread.x);
    emulator.failure = std::string(message) + where;
    f.state = State::Done;
    change(f.context, emulator.scheduler);
    std::abort();
}

unsigned char* slot(unsigned lane) {
    unsigned first = number(*here) / 32 * 32;
    return &emulator.slots[(first + lane) * 64];
}
unsigned char* shared_of(unsigned rank) {
    if (rank >= emulator.n_ranks) fail("a rank beyond the cluster");
    return emulator.shared[rank];
}

void copy_later(void* to, const void* from, bool valid) {
    if (reinterpret_cast<uintptr_t>(to) % 16 || (valid && reinterpret_cast<uintptr_t>(from) % 16)) {
        fail("an asynchronous copy that is not aligned to 16 bytes");
    }
    fibre().pending.push_back({to, from, valid});
}
void copies_commit() { fibre().groups.push_back(std::exchange(fibre().pending, {})); }
void copies_wait(int n) {
    auto& groups = fibre().groups;
    while (static_cast<int>(groups.size()) > n) {
        for (const Copy& copy : groups.front()) {
            if (copy.valid) {
                std::memcpy(copy.to, copy.from, 16);
            } else {
                std::memset(copy.to, 0, 16);
            }
        }
        groups.erase(groups.begin());
    }
}

float half_to_float(uint16_t bits) {
    _Float16 half;
    std::memcpy(&half, &bits, 2);
    return static_cast<float>(half);
}
uint16_t float_to_half(float x) {
    auto half = static_cast<_Float16>(x);
    uint16_t bits;
    std::memcpy(&bits, &half, 2);
    return bits;
}

}  // namespace emulation

using namespace emulation;

// Memory between guard pages, filled with 0xff; null if there is none. `name` must live as long as the buffer.
extern "C" void* fwd_guarded_new(size_t bytes, const char* name) {
    Guarded g = guard(bytes, name);
    if (g.mapping) emulator.guarded.push_back(g);
    return g.start;
}

extern "C" void fwd_guarded_read_only(void* start) {
    const size_t page = sysconf(_SC_PAGESIZE);
    for (Guarded& g : emulator.guarded) {
        if (g.start == start && g.mapped > 2 * page) mprotect(g.mapping + page, g.mapped - 2 * page, PROT_READ);
    }
}

// Frees it; 0 if something was written beside it.
extern "C" int fwd_guarded_free(void* start) {
    auto& all = emulator.guarded;
    for (size_t i = 0; i < all.size(); ++i) {
        if (all[i].start != start) continue;
        int fine = intact(all[i]);
        munmap(all[i].mapping, all[i].mapped);
        all.erase(all.begin() + i);
        return fine;
    }
    return 1;
}

// Runs a kernel; 0, or 1 with the reason in `message`. `signature` says what `arguments` point to, as in `Register`.
extern "C" int fwd_emulate(const char* name, const unsigned* grid, unsigned block, unsigned cluster, size_t shared_bytes,
                           const char* signature, void** arguments, int order, char* message, size_t message_len) {
    Emulator& e = emulator;
    e.failure.clear();
    auto found = functions().find(name);
    if (found == functions().end()) {
        e.failure = "there is no kernel of this name";
    } else if (found->second.signature != signature) {
        e.failure = "takes arguments " + found->second.signature + ", not " + signature + " (pointer, int, long, float)";
    } else if (block == 0 || block % 32 || block > 1024 || cluster == 0 || grid[0] % cluster) {
        e.failure = "blocks must have 32 to 1024 threads, a multiple of 32, and a grid whole clusters";
    } else {
        catch_signals();
        e.function = found->second.function;
        e.arguments = arguments;
        e.n_threads = block;
        e.n_ranks = cluster;
        const unsigned total = block * cluster;
        e.slots.resize(size_t(total) * 64);
        while (e.fibres.size() < total) {
            e.fibres.push_back(std::make_unique<Fibre>());
            e.fibres.back()->stack = std::make_unique_for_overwrite<char[]>(STACK);
        }
        const std::vector<unsigned> threads = order_of(total, order);
        const uint64_t n_clusters = uint64_t(grid[0]) / cluster * grid[1] * grid[2];
        for (unsigned r = 0; r < cluster; ++r) {
            e.guarded.push_back(guard(shared_bytes, "shared memory"));
            e.shared.push_back(e.guarded.back().start);
        }
        for (uint64_t k = 0; k < n_clusters && e.failure.empty(); ++k) {
            const uint64_t c = order == 1 ? n_clusters - 1 - k : k;
            for (unsigned char* shared : e.shared) std::memset(shared, 0xff, shared_bytes);
            for (unsigned i = 0; i < total; ++i) {
                Fibre& f = *e.fibres[i];
                const unsigned rank = i / block, per_row = grid[0] / cluster;
                f.thread = {i % block, 0, 0};
                f.block = {unsigned(c % per_row) * cluster + rank, unsigned(c / per_row % grid[1]), unsigned(c / per_row / grid[1])};
                f.n_threads = {block, 1, 1};
                f.n_blocks = {grid[0], grid[1], grid[2]};
                f.rank = rank;
                f.shared = e.shared[rank];
                f.state = State::Ready;
                f.pending.clear();
                f.groups.clear();
                prepare(f.context, f.stack.get(), enter);
            }
            run_cluster(threads);
        }
        for (; !e.shared.empty(); e.shared.pop_back(), e.guarded.pop_back()) {
            const Guarded& g = e.guarded.back();
            if (e.failure.empty() && !intact(g)) e.failure = "write beside the shared memory of the launch";
            munmap(g.mapping, g.mapped);
        }
    }
    if (e.failure.empty()) return 0;
    std::snprintf(message, message_len, "%s", e.failure.c_str());
    return 1;
}
