// What the stand-ins for NVIDIA's driver and runtime compiler share: settings from the
// environment, sentences for what they do not allow, results a test asks for.
//
// Both are stricter than the real ones: what NVIDIA's documentation calls undefined, or
// an error that a program should never see, ends the process with one sentence.

#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace standin {

[[noreturn]] __attribute__((format(printf, 2, 3)))
inline void refuse(const char* call, const char* format, ...) {
    char text[512];
    va_list more;
    va_start(more, format);
    vsnprintf(text, sizeof text, format, more);
    va_end(more);
    fprintf(stderr, "stand-in: %s: %s\n", call, text);
    abort();
}

inline std::string setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value && *value ? value : otherwise;
}

inline long long number(const char* name, long long otherwise) {
    const char* value = getenv(name);
    return value && *value ? atoll(value) : otherwise;
}

// The version in a variable, "12.9" as 12090.
inline int version(const char* name) {
    int major = 12, minor = 9;
    sscanf(setting(name, "12.9").c_str(), "%d.%d", &major, &minor);
    return 1000 * major + 10 * minor;
}

// DNET_STANDIN_FAULTS = "cuMemAlloc_v2:7:2,kernel:3+:700": what the 7th call of a function
// returns, and every kernel from the third on. 0 where nothing is to go wrong.
inline int fault(const std::string& call) {
    static std::mutex lock;
    static std::map<std::string, int> counts;
    static const std::string faults = setting("DNET_STANDIN_FAULTS", "");
    if (faults.empty()) return 0;
    std::lock_guard<std::mutex> own(lock);
    const int count = ++counts[call];
    const std::string all = "," + faults;
    for (size_t at = all.find("," + call + ":"); at != std::string::npos;
         at = all.find("," + call + ":", at + 1)) {
        const char* rest = all.c_str() + at + call.size() + 2;
        char* end;
        const long when = strtol(rest, &end, 10);
        const bool onward = *end == '+';
        const int code = atoi(end + (onward ? 2 : 1));
        if (count == when || (onward && count > when)) return code;
    }
    return 0;
}

// One more line of the file named by a variable, whole even if others write to it.
inline void note(const char* variable, const std::string& line) {
    const std::string path = setting(variable, "");
    if (path.empty()) return;
    if (FILE* file = fopen(path.c_str(), "a")) {
        const std::string text = line + "\n";
        fwrite(text.data(), 1, text.size(), file);
        fclose(file);
    }
}

} // namespace standin
