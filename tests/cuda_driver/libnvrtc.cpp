// A stand-in for NVIDIA's runtime compiler: g++ behind kernels/shim.h.
//
// A "cubin" is a shared object, "PTX" the same in hexadecimal digits behind a comment.
// What was compiled before is taken from the folder DNET_STANDIN_OBJECTS.
//
//   DNET_STANDIN_NVRTC           version, "12.9"
//   DNET_STANDIN_ARCHITECTURES   what it compiles for, "75,80,90,100"
//   DNET_STANDIN_COMPILED        a file that gets a line for every compilation
//   DNET_STANDIN_FAULTS          see common.h; nvrtcResult instead of CUresult

#include "common.h"

#include <cctype>
#include <dlfcn.h>
#include <fcntl.h>
#include <set>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern char** environ;

using namespace standin;

namespace {

typedef int Status;
enum { SUCCESS = 0, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string text, log, cubin, ptx;
};

std::mutex lock;
std::set<Program*> programs;

Program* known(const char* call, Program* program) {
    std::lock_guard<std::mutex> own(lock);
    if (!programs.count(program)) refuse(call, "this is no program, or it was destroyed");
    return program;
}

std::vector<int> architectures() {
    std::vector<int> all;
    const std::string list = setting("DNET_STANDIN_ARCHITECTURES", "70,75,80,86,89,90,100,120");
    for (const char* at = list.c_str(); *at;) {
        char* end;
        all.push_back((int)strtol(at, &end, 10));
        at = *end ? end + 1 : end;
    }
    return all;
}

// What is inside the first brackets at or after a place; the place behind them.
std::string bracketed(const std::string& text, size_t& at) {
    const size_t open = text.find('(', at);
    int depth = 0;
    for (at = open; at < text.size(); ++at) {
        depth += text[at] == '(' ? 1 : text[at] == ')' ? -1 : 0;
        if (depth == 0) break;
    }
    ++at;
    return text.substr(open + 1, at - open - 2);
}

// Before every kernel a constant with its launch bound: 1024 where it has none.
std::string with_bounds(const std::string& text) {
    const std::string kernel = "extern \"C\" __global__ void", bounds = "__launch_bounds__";
    std::string out;
    size_t done = 0;
    for (size_t at = text.find(kernel); at != std::string::npos; at = text.find(kernel, done)) {
        size_t name = at + kernel.size();
        while (isspace((unsigned char)text[name])) ++name;
        std::string most = "1024";
        if (text.compare(name, bounds.size(), bounds) == 0) {
            name += bounds.size();
            most = bracketed(text, name);
            const size_t comma = most.find(',');
            if (comma != std::string::npos) most.resize(comma);
            while (isspace((unsigned char)text[name])) ++name;
        }
        size_t end = name;
        while (isalnum((unsigned char)text[end]) || text[end] == '_') ++end;
        const std::string own = text.substr(name, end - name);
        out += text.substr(done, at - done);
        out += "extern \"C\" const int dnet_threads_" + own + " = " + most + "; ";
        out += text.substr(at, end - at);
        done = end;
    }
    return out + text.substr(done);
}

// The device library's struct as a GPU has it.
std::string launch_struct(const std::string& text) {
    const size_t from = text.find("struct Launch {");
    const size_t to = from == std::string::npos ? from : text.find("};", from);
    if (to == std::string::npos) return "";
    return "namespace standin {\ntemplate <class T> using Global = T*;\n" +
           text.substr(from, to + 2 - from) + "\n}\n";
}

bool read(const std::string& path, std::string& text) {
    FILE* file = fopen(path.c_str(), "rb");
    if (!file) return false;
    text.clear();
    char part[1 << 16];
    for (size_t n; (n = fread(part, 1, sizeof part, file)) > 0;) text.append(part, n);
    fclose(file);
    return true;
}

void write(const std::string& path, const std::string& text) {
    FILE* file = fopen(path.c_str(), "wb");
    if (!file || fwrite(text.data(), 1, text.size(), file) != text.size() || fclose(file))
        refuse("nvrtcCompileProgram", "cannot write %s", path.c_str());
}

// FNV-1a, from two starting points.
std::string hash(const std::string& text) {
    char digits[33];
    unsigned long long a = 14695981039346656037ull, b = ~a;
    for (unsigned char c : text) {
        a = (a ^ c) * 1099511628211ull;
        b = (b ^ c) * 1099511628211ull;
    }
    snprintf(digits, sizeof digits, "%016llx%016llx", a, b);
    return digits;
}

// Runs the script that compiles; what it says goes to a file.
bool compiles(const std::string& source, const std::string& object, const std::string& more,
              const std::string& said) {
    const std::string script = STANDIN_TESTS "/cuda_shim/compile";
    const char* arguments[] = {script.c_str(), source.c_str(), object.c_str(), more.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, said.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    pid_t child;
    const int started =
        posix_spawn(&child, script.c_str(), &actions, nullptr, (char**)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (started) refuse("nvrtcCompileProgram", "%s does not start", script.c_str());
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {}
    return status == 0;
}

// The shared object of a text, from the folder of those there are or compiled.
bool object(const std::string& text, const std::string& more, std::string& code, std::string& log) {
    static std::string races, shim, launch;
    static std::once_flag once;
    std::call_once(once, [] {
        read(STANDIN_TESTS "/../kernels/shim_races.h", races);
        read(STANDIN_TESTS "/../kernels/shim.h", shim);
        read(STANDIN_TESTS "/../kernels/shim_launch.h", launch);
    });
    const std::string folder = setting("DNET_STANDIN_OBJECTS", "/tmp");
    const std::string path = folder + "/" + hash(races + shim + text + launch + more);
    if (read(path, code)) return true;
    static int count = 0;
    int own;
    {
        std::lock_guard<std::mutex> locked(lock);
        own = ++count;
    }
    const std::string base = path + "." + std::to_string(getpid()) + "." + std::to_string(own);
    const std::string source = base + ".cu", rest = base + ".h", made = base + ".so", said = base + ".log";
    write(source, text);
    write(rest, more);
    const bool good = compiles(source, made, rest, said);
    read(said, log);
    if (good) {
        read(made, code);
        rename(made.c_str(), path.c_str());
    }
    for (const std::string* file : {&source, &rest, &made, &said}) unlink(file->c_str());
    return good;
}

Status give(const char* call, Program* program, std::string Program::* what, size_t* size, char* to) {
    if (!size && !to) refuse(call, "there is no place for the result");
    const std::string& text = known(call, program)->*what;
    if (size) *size = text.size();
    if (to) memcpy(to, text.data(), text.size());
    return SUCCESS;
}

} // namespace

extern "C" {

Status nvrtcVersion(int* major, int* minor) {
    const int v = version("DNET_STANDIN_NVRTC");
    *major = v / 1000;
    *minor = v % 1000 / 10;
    return SUCCESS;
}

Status nvrtcGetNumSupportedArchs(int* count) {
    *count = (int)architectures().size();
    return SUCCESS;
}

Status nvrtcGetSupportedArchs(int* all) {
    for (int a : architectures()) *all++ = a;
    return SUCCESS;
}

Status nvrtcCreateProgram(Program** program, const char* text, const char* name, int headers,
                          const char* const* sources, const char* const* names) {
    if (!program || !text || !name) refuse(__func__, "there is no text, or no name");
    if (headers || sources || names) refuse(__func__, "the text has headers");
    if (const int code = fault(__func__)) return code;
    *program = new Program;
    (*program)->text = text;
    (*program)->log = std::string(1, '\0');
    std::lock_guard<std::mutex> own(lock);
    programs.insert(*program);
    return SUCCESS;
}

Status nvrtcDestroyProgram(Program** program) {
    known(__func__, *program);
    std::lock_guard<std::mutex> own(lock);
    programs.erase(*program);
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

Status nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    Program& p = *known(__func__, program);
    const std::string virtual_prefix = "--gpu-architecture=compute_", real_prefix = "--gpu-architecture=sm_";
    int architecture = 0;
    bool ptx = false;
    for (int k = 0; k < count; ++k) {
        const std::string option = options[k];
        if (option.rfind(virtual_prefix, 0) == 0) {
            ptx = true;
            architecture = atoi(option.c_str() + virtual_prefix.size());
        } else if (option.rfind(real_prefix, 0) == 0) {
            architecture = atoi(option.c_str() + real_prefix.size());
        } else if (option != "--std=c++17" && option != "--ptxas-options=-v") {
            p.log = "nvrtc: error: unrecognized option " + option + std::string(1, '\0');
            return INVALID_OPTION;
        }
    }
    // a part of its own is found by its name only, as by the library of CUDA 13
    const int v = version("DNET_STANDIN_NVRTC");
    const std::string part =
        "libnvrtc-builtins.so." + std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
    if (!dlopen(part.c_str(), RTLD_NOW | RTLD_NOLOAD)) {
        p.log = "nvrtc: error: failed to open " + part + "." + '\0';
        return COMPILATION;
    }
    bool listed = false;
    for (int a : architectures()) listed |= a == architecture;
    if (!listed) {
        p.log = std::string("nvrtc: error: invalid value for --gpu-architecture (-arch)") + '\0';
        return INVALID_OPTION;
    }
    const std::string target = std::to_string(architecture) + (ptx ? " as PTX" : "");
    note("DNET_STANDIN_COMPILED", target + " " + hash(p.text));
    if (const int code = fault(__func__)) return code;
    std::string epilogue, log;
    if (!read(STANDIN_TESTS "/cuda_driver/cubin.h", epilogue)) refuse(__func__, "cubin.h is missing");
    const std::string more = launch_struct(p.text) + epilogue +
        "\nextern \"C\" const int dnet_target[] = {" + std::to_string(architecture) + ", " +
        std::to_string(version("DNET_STANDIN_NVRTC")) + ", " + (ptx ? "1" : "0") + "};\n";
    std::string code;
    const bool good = object(with_bounds(p.text), more, code, log);
    p.log = log + '\0';
    if (!good) return COMPILATION;
    p.ptx = "// in place of PTX\n";
    for (unsigned char c : code) {
        p.ptx += "0123456789abcdef"[c >> 4];
        p.ptx += "0123456789abcdef"[c & 15];
    }
    p.ptx += '\0';
    if (!ptx) p.cubin = code;
    return SUCCESS;
}

Status nvrtcGetProgramLogSize(Program* p, size_t* size) { return give(__func__, p, &Program::log, size, nullptr); }
Status nvrtcGetProgramLog(Program* p, char* to) { return give(__func__, p, &Program::log, nullptr, to); }
Status nvrtcGetCUBINSize(Program* p, size_t* size) { return give(__func__, p, &Program::cubin, size, nullptr); }
Status nvrtcGetCUBIN(Program* p, char* to) { return give(__func__, p, &Program::cubin, nullptr, to); }
Status nvrtcGetPTXSize(Program* p, size_t* size) { return give(__func__, p, &Program::ptx, size, nullptr); }
Status nvrtcGetPTX(Program* p, char* to) { return give(__func__, p, &Program::ptx, nullptr, to); }

} // extern "C"
