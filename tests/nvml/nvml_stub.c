/* libnvidia-ml.so.1 without a GPU: answers from a text file, loaded by the real pynvml.
 *
 * The file is named by NVML_STUB_FILE and looked at again at every call (it is replaced by rename).
 * Each line is "key value": host-wide ("driver 580.95.05"), of GPU 3 ("3/power 612000"), or of its MIG
 * instance gi1 ("3/mig/1/mem_used 1"). A second number after a value is its growth per second since
 * the time in "since". What the file does not mention is NVML_ERROR_NOT_SUPPORTED. See stub.py.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { SLOTS = 16384, MAX_GPUS = 64, MAX_GI = 16, MIG_BASE = 1000, KEY = 96 };

/* ---- the file ---------------------------------------------------------------------------------- */

struct entry { char *key, *value; };
static struct entry table[SLOTS];
static char *text;
static struct stat seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static unsigned slot_of(const char *key)
{
    uint64_t hash = 1469598103934665603u;
    for (; *key; key++)
        hash = (hash ^ (unsigned char)*key) * 1099511628211u;
    return hash % SLOTS;
}

static struct entry *find(const char *key)
{
    unsigned slot = slot_of(key);
    while (table[slot].key && strcmp(table[slot].key, key))
        slot = (slot + 1) % SLOTS;
    return &table[slot];
}

static void parse(void)
{
    memset(table, 0, sizeof table);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *value = strchr(line, ' ');
        if (!value || *line == '#')
            continue;
        *value++ = 0;
        *find(line) = (struct entry){line, value};
    }
}

static void reload(void)
{
    const char *path = getenv("NVML_STUB_FILE");
    struct stat is;
    if (!path || stat(path, &is))
        return;
    if (text && is.st_ino == seen.st_ino && is.st_size == seen.st_size
        && !memcmp(&is.st_mtim, &seen.st_mtim, sizeof is.st_mtim))
        return;
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    char *fresh = calloc(1, is.st_size + 1);
    size_t got = fread(fresh, 1, is.st_size, file);
    fclose(file);
    fresh[got] = 0;
    free(text);
    text = fresh;
    seen = is;
    parse();
}

static const char *string_of(const char *key)
{
    return find(key)->value;
}

static int number(const char *key, double *out)
{
    const char *value = string_of(key);
    if (!value)
        return NOT_SUPPORTED;
    char *end;
    *out = strtod(value, &end);
    double growth = strtod(end, NULL);
    if (growth != 0) {
        const char *since = string_of("since");
        *out += growth * (now() - (since ? atof(since) : 0));
    }
    return SUCCESS;
}

/* ---- handles: 1 + index for a GPU, MIG_BASE * (1 + index) + gi for an instance ------------------- */

typedef void *device_t;

static int gpu_of(device_t handle)
{
    intptr_t number = (intptr_t)handle;
    return (number >= MIG_BASE ? number / MIG_BASE : number) - 1;
}

static int gi_of(device_t handle)
{
    intptr_t number = (intptr_t)handle;
    return number >= MIG_BASE ? number % MIG_BASE : -1;
}

static const char *key_of(device_t handle, const char *name)
{
    static __thread char key[KEY];
    if (gi_of(handle) >= 0)
        snprintf(key, sizeof key, "%d/mig/%d/%s", gpu_of(handle), gi_of(handle), name);
    else
        snprintf(key, sizeof key, "%d/%s", gpu_of(handle), name);
    return key;
}

/* ---- what every call does first: wait, fail, or go on with the lock held -------------------------- */

static double either(const char *what, const char *function, int gpu)
{
    char key[KEY];
    double value = 0;
    snprintf(key, sizeof key, "%d/%s/%s", gpu, what, function);
    if (number(key, &value)) {
        snprintf(key, sizeof key, "%s/%s", what, function);
        number(key, &value);
    }
    return value;
}

/* A delay ends early when the file no longer asks for it, so that a hang can be undone. */
static void dawdle(const char *function, int gpu)
{
    double start = now();
    while (either("delay", function, gpu) > now() - start) {
        struct timespec pause = {0, 10 * 1000 * 1000};
        pthread_mutex_unlock(&lock);
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        reload();
    }
}

static int enter(const char *function, device_t handle)
{
    double lost = 0;
    int gpu = handle ? gpu_of(handle) : -1;
    pthread_mutex_lock(&lock);
    reload();
    dawdle(function, gpu);
    int code = (int)either("fail", function, gpu);
    if (code)
        return code;
    if (gpu >= 0 && !number(key_of((device_t)(intptr_t)(gpu + 1), "lost"), &lost) && lost)
        return (int)lost;
    if (!initialized && strncmp(function, "nvmlInit", 8))
        return UNINITIALIZED;
    return SUCCESS;
}

static int leave(int code)
{
    pthread_mutex_unlock(&lock);
    return code;
}

static int read_number(const char *function, device_t handle, const char *name, double *out)
{
    int code = enter(function, handle);
    return leave(code ? code : number(handle ? key_of(handle, name) : name, out));
}

static int read_uint(const char *function, device_t handle, const char *name, unsigned *out)
{
    double value = 0;
    int code = read_number(function, handle, name, &value);
    if (!code)
        *out = (unsigned)(int64_t)value;
    return code;
}

static int read_ull(const char *function, device_t handle, const char *name, unsigned long long *out)
{
    double value = 0;
    int code = read_number(function, handle, name, &value);
    if (!code)
        *out = (unsigned long long)value;
    return code;
}

static int read_string(const char *function, device_t handle, const char *name, char *out, unsigned size)
{
    int code = enter(function, handle);
    const char *value = code ? NULL : string_of(handle ? key_of(handle, name) : name);
    if (!code && !value)
        code = NOT_SUPPORTED;
    if (!code)
        snprintf(out, size, "%s", value);
    return leave(code);
}

#define UINT(function, name) \
    int function(device_t d, unsigned *out) { return read_uint(#function, d, name, out); }
#define TEXT(function, name) \
    int function(device_t d, char *out, unsigned n) { return read_string(#function, d, name, out, n); }
#define TWO(function, first, second) \
    int function(device_t d, unsigned *one, unsigned *two) \
    { \
        int code = read_uint(#function, d, first, one); \
        return code ? code : read_uint(#function, d, second, two); \
    }

/* ---- the library ---------------------------------------------------------------------------------- */

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    int code = enter("nvmlInitWithFlags", NULL);
    if (!code)
        initialized++;
    return leave(code);
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void)
{
    int code = enter("nvmlShutdown", NULL);
    if (!code)
        initialized--;
    return leave(code);
}

const char *nvmlErrorString(int code)
{
    static __thread char message[32];
    snprintf(message, sizeof message, "stub error %d", code);
    return message;
}

int nvmlSystemGetDriverVersion(char *out, unsigned n)
{
    return read_string("nvmlSystemGetDriverVersion", NULL, "driver", out, n);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned n)
{
    return read_string("nvmlSystemGetNVMLVersion", NULL, "nvml", out, n);
}

int nvmlDeviceGetCount_v2(unsigned *out) { return read_uint("nvmlDeviceGetCount_v2", NULL, "gpus", out); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *out)
{
    *out = (device_t)(intptr_t)(index + 1);
    int code = enter("nvmlDeviceGetHandleByIndex_v2", *out);
    double count = 0;
    if (!code && (number("gpus", &count) || index >= count))
        code = INVALID_ARGUMENT;
    return leave(code);
}

/* ---- identity -------------------------------------------------------------------------------------- */

TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetSerial, "serial")
UINT(nvmlDeviceGetMinorNumber, "minor")
UINT(nvmlDeviceGetArchitecture, "architecture")
TWO(nvmlDeviceGetCudaComputeCapability, "capability_major", "capability_minor")

int nvmlDeviceGetIndex(device_t d, unsigned *out)
{
    int code = enter("nvmlDeviceGetIndex", d);
    *out = gpu_of(d);
    return leave(code);
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };

int nvmlDeviceGetPciInfo_v3(device_t d, struct pci *out)
{
    int code = enter("nvmlDeviceGetPciInfo_v3", d);
    const char *value = code ? NULL : string_of(key_of(d, "pci"));
    if (!code && !value)
        code = NOT_SUPPORTED;
    if (!code) {
        memset(out, 0, sizeof *out);
        snprintf(out->address, sizeof out->address, "%s", value);
        sscanf(value, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    }
    return leave(code);
}

/* ---- readings -------------------------------------------------------------------------------------- */

int nvmlDeviceGetUtilizationRates(device_t d, unsigned out[2])
{
    int code = read_uint("nvmlDeviceGetUtilizationRates", d, "util", &out[0]);
    return code ? code : read_uint("nvmlDeviceGetUtilizationRates", d, "mem_util", &out[1]);
}

struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(device_t d, struct memory_v2 *out)
{
    const char *me = "nvmlDeviceGetMemoryInfo_v2";
    int code = read_ull(me, d, "mem_total", &out->total);
    if (!code)
        code = read_ull(me, d, "mem_used", &out->used);
    if (!code && read_ull(me, d, "mem_reserved", &out->reserved))
        out->reserved = 0;
    if (!code)
        out->free = out->total - out->reserved - out->used;
    return code;
}

int nvmlDeviceGetMemoryInfo(device_t d, unsigned long long out[3])
{
    struct memory_v2 memory = {0};
    int code = enter("nvmlDeviceGetMemoryInfo", d);
    leave(code);
    if (!code)
        code = nvmlDeviceGetMemoryInfo_v2(d, &memory);
    out[0] = memory.total, out[1] = memory.free, out[2] = memory.used;
    return code;
}

UINT(nvmlDeviceGetPowerUsage, "power")
UINT(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
UINT(nvmlDeviceGetPowerManagementLimit, "power_requested")
TWO(nvmlDeviceGetPowerManagementLimitConstraints, "power_min", "power_max")
int nvmlDeviceGetTotalEnergyConsumption(device_t d, unsigned long long *out)
{
    return read_ull("nvmlDeviceGetTotalEnergyConsumption", d, "energy", out);
}

int nvmlDeviceGetTemperature(device_t d, unsigned sensor, unsigned *out)
{
    return sensor ? INVALID_ARGUMENT : read_uint("nvmlDeviceGetTemperature", d, "temp", out);
}

int nvmlDeviceGetTemperatureThreshold(device_t d, unsigned which, unsigned *out)
{
    char name[32];
    snprintf(name, sizeof name, "threshold/%u", which);
    return read_uint("nvmlDeviceGetTemperatureThreshold", d, name, out);
}

struct margin { unsigned version; int value; };

int nvmlDeviceGetMarginTemperature(device_t d, struct margin *out)
{
    return read_uint("nvmlDeviceGetMarginTemperature", d, "margin", (unsigned *)&out->value);
}

static int read_clock(const char *function, const char *kind, device_t d, unsigned type, unsigned *out)
{
    char name[32];
    snprintf(name, sizeof name, "%s/%u", kind, type);
    return read_uint(function, d, name, out);
}

int nvmlDeviceGetClockInfo(device_t d, unsigned type, unsigned *out)
{
    return read_clock("nvmlDeviceGetClockInfo", "clock", d, type, out);
}

int nvmlDeviceGetMaxClockInfo(device_t d, unsigned type, unsigned *out)
{
    return read_clock("nvmlDeviceGetMaxClockInfo", "clock_max", d, type, out);
}

int nvmlDeviceGetCurrentClocksEventReasons(device_t d, unsigned long long *out)
{
    return read_ull("nvmlDeviceGetCurrentClocksEventReasons", d, "throttle", out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device_t d, unsigned long long *out)
{
    return read_ull("nvmlDeviceGetCurrentClocksThrottleReasons", d, "throttle", out);
}

int nvmlDeviceGetViolationStatus(device_t d, unsigned policy, unsigned long long out[2])
{
    char name[32];
    snprintf(name, sizeof name, "violation/%u", policy);
    out[0] = (unsigned long long)(now() * 1e6);
    return read_ull("nvmlDeviceGetViolationStatus", d, name, &out[1]);
}

TWO(nvmlDeviceGetEncoderUtilization, "enc", "codec_period")
TWO(nvmlDeviceGetDecoderUtilization, "dec", "codec_period")
TWO(nvmlDeviceGetJpgUtilization, "jpg", "codec_period")
TWO(nvmlDeviceGetOfaUtilization, "ofa", "codec_period")

int nvmlDeviceGetPcieThroughput(device_t d, unsigned counter, unsigned *out)
{
    return read_uint("nvmlDeviceGetPcieThroughput", d, counter ? "pcie_rx_kb" : "pcie_tx_kb", out);
}

UINT(nvmlDeviceGetPcieReplayCounter, "pcie_replay")
UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")

int nvmlDeviceGetNvLinkState(device_t d, unsigned link, unsigned *out)
{
    unsigned links = 0;
    int code = read_uint("nvmlDeviceGetNvLinkState", d, "nvlinks", &links);
    if (!code && link >= 18)
        code = INVALID_ARGUMENT;
    *out = link < links;
    return code;
}

int nvmlDeviceGetTotalEccErrors(device_t d, unsigned kind, unsigned counter, unsigned long long *out)
{
    char name[32];
    snprintf(name, sizeof name, "ecc/%u/%u", kind, counter);
    return read_ull("nvmlDeviceGetTotalEccErrors", d, name, out);
}

int nvmlDeviceGetRemappedRows(device_t d, unsigned *correctable, unsigned *uncorrectable, unsigned *pending,
                              unsigned *failure)
{
    const char *me = "nvmlDeviceGetRemappedRows";
    int code = read_uint(me, d, "remapped/correctable", correctable);
    code = code ? code : read_uint(me, d, "remapped/uncorrectable", uncorrectable);
    code = code ? code : read_uint(me, d, "remapped/pending", pending);
    return code ? code : read_uint(me, d, "remapped/failure", failure);
}

int nvmlDeviceGetRetiredPages(device_t d, unsigned cause, unsigned *count, unsigned long long *pages)
{
    char name[32];
    unsigned have = 0, room = *count;
    snprintf(name, sizeof name, "retired/%u", cause);
    int code = read_uint("nvmlDeviceGetRetiredPages", d, name, &have);
    if (code)
        return code;
    *count = have;
    if (have > room)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; pages && i < have; i++)
        pages[i] = 4096ull * i;
    return SUCCESS;
}

UINT(nvmlDeviceGetRetiredPagesPendingStatus, "retired/pending")

/* ---- fields ---------------------------------------------------------------------------------------- */

union value { double d; unsigned u; unsigned long long ull; long long ll; int i; };
struct field { uint32_t id, scope; int64_t at, latency; int type, code; union value value; };

static int read_field(device_t d, struct field *field)
{
    char name[48];
    double value = 0;
    if (field->scope && field->scope != 0xffffffffu)
        snprintf(name, sizeof name, "field/%u/%u", field->id, field->scope);
    else
        snprintf(name, sizeof name, "field/%u", field->id);
    int code = number(key_of(d, name), &value);
    if (field->id >= 193 && field->id <= 196) {
        field->type = 5;
        field->value.i = (int)value;
    } else if (field->id == 82 || (field->id >= 185 && field->id <= 192)) {
        field->type = 1;
        field->value.u = (unsigned)value;
    } else {
        field->type = 3;
        field->value.ull = (unsigned long long)value;
    }
    return code;
}

int nvmlDeviceGetFieldValues(device_t d, int count, struct field *fields)
{
    int code = enter("nvmlDeviceGetFieldValues", d);
    for (int i = 0; !code && i < count; i++) {
        fields[i].at = (int64_t)(now() * 1e6);
        fields[i].code = read_field(d, &fields[i]);
    }
    return leave(code);
}

/* ---- processes: "proc/<n> <pid> <bytes> <gi> <sm per cent>" ------------------------------------------ */

struct process { unsigned pid; unsigned long long bytes; unsigned gi, ci; };
struct process_util { unsigned pid; unsigned long long at; unsigned sm, mem, enc, dec; };

static int process(device_t d, unsigned n, struct process *out, unsigned *sm)
{
    char name[32];
    snprintf(name, sizeof name, "proc/%u", n);
    const char *value = string_of(key_of((device_t)(intptr_t)(gpu_of(d) + 1), name));
    out->ci = 0;
    return value && sscanf(value, "%u %llu %u %u", &out->pid, &out->bytes, &out->gi, sm) == 4;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device_t d, unsigned *count, struct process *out)
{
    int code = enter("nvmlDeviceGetComputeRunningProcesses_v3", d);
    unsigned room = *count, have = 0, sm;
    struct process one;
    for (unsigned n = 0; !code && process(d, n, &one, &sm); n++) {
        if (gi_of(d) >= 0 && (unsigned)gi_of(d) != one.gi)
            continue;
        if (out && have < room)
            out[have] = one;
        have++;
    }
    *count = have;
    if (!code && have > room)
        code = INSUFFICIENT_SIZE;
    return leave(code);
}

int nvmlDeviceGetProcessUtilization(device_t d, struct process_util *out, unsigned *count, unsigned long long since)
{
    int code = enter("nvmlDeviceGetProcessUtilization", d);
    unsigned room = out ? *count : 0, have = 0, sm;
    struct process one;
    (void)since;
    for (; !code && process(d, have, &one, &sm); have++)
        if (have < room)
            out[have] = (struct process_util){one.pid, (unsigned long long)(now() * 1e6), sm, 0, 0, 0};
    *count = have;
    if (!code)
        code = have == 0 ? NOT_FOUND : have > room ? INSUFFICIENT_SIZE : SUCCESS;
    return leave(code);
}

/* ---- MIG: "<gpu>/mig_mode 1", instances "<gpu>/mig/<gi>/uuid ..." in ascending order ------------------ */

TWO(nvmlDeviceGetMigMode, "mig_mode", "mig_mode")
UINT(nvmlDeviceGetMaxMigDeviceCount, "mig_max")

int nvmlDeviceGetMigDeviceHandleByIndex(device_t d, unsigned index, device_t *out)
{
    int code = enter("nvmlDeviceGetMigDeviceHandleByIndex", d);
    unsigned found = 0;
    *out = NULL;
    for (int gi = 0; !code && gi < MAX_GI && !*out; gi++) {
        device_t instance = (device_t)(intptr_t)(MIG_BASE * (gpu_of(d) + 1) + gi);
        if (string_of(key_of(instance, "uuid")) && found++ == index)
            *out = instance;
    }
    return leave(code ? code : *out ? SUCCESS : NOT_FOUND);
}

int nvmlDeviceGetGpuInstanceId(device_t d, unsigned *out)
{
    int code = enter("nvmlDeviceGetGpuInstanceId", d);
    *out = gi_of(d);
    return leave(code ? code : gi_of(d) < 0 ? NOT_SUPPORTED : SUCCESS);
}

int nvmlDeviceGetComputeInstanceId(device_t d, unsigned *out)
{
    *out = 0;
    return gi_of(d) < 0 ? NOT_SUPPORTED : SUCCESS;
}

/* ---- fabric: "fabric <state> <clique> <health> <cluster uuid in hex>" --------------------------------- */

struct fabric { unsigned version; uint8_t cluster[16]; int status; uint32_t clique, state, mask; uint8_t health; };

int nvmlDeviceGetGpuFabricInfoV(device_t d, struct fabric *out)
{
    int code = enter("nvmlDeviceGetGpuFabricInfoV", d);
    const char *value = code ? NULL : string_of(key_of(d, "fabric"));
    unsigned state, clique, health, byte;
    char cluster[33];
    if (!code && (!value || sscanf(value, "%u %u %u %32s", &state, &clique, &health, cluster) != 4))
        code = NOT_SUPPORTED;
    if (!code) {
        for (int i = 0; i < 16; i++)
            out->cluster[i] = sscanf(cluster + 2 * i, "%2x", &byte) == 1 ? byte : 0;
        out->status = SUCCESS, out->clique = clique, out->state = state, out->mask = 0;
        if (out->version >> 24 >= 3)
            out->health = health;
    }
    return leave(code);
}

/* ---- events: "xid/<n> <gpu> <code>"; those in the file when the set is made have been ------------------ */

struct event { device_t device; unsigned long long type, data; unsigned gi, ci; };
struct event_set { unsigned next; };

static int xid(unsigned n, unsigned *gpu, unsigned *code)
{
    char key[32];
    snprintf(key, sizeof key, "xid/%u", n);
    const char *value = string_of(key);
    return value && sscanf(value, "%u %u", gpu, code) == 2;
}

int nvmlEventSetCreate(struct event_set **out)
{
    int code = enter("nvmlEventSetCreate", NULL);
    unsigned gpu, number;
    if (!code) {
        *out = calloc(1, sizeof **out);
        while (xid((*out)->next, &gpu, &number))
            (*out)->next++;
    }
    return leave(code);
}

int nvmlEventSetFree(struct event_set *set)
{
    free(set);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(device_t d, unsigned long long *out)
{
    int code = enter("nvmlDeviceGetSupportedEventTypes", d);
    *out = 8;
    return leave(code);
}

int nvmlDeviceRegisterEvents(device_t d, unsigned long long types, struct event_set *set)
{
    (void)types, (void)set;
    return leave(enter("nvmlDeviceRegisterEvents", d));
}

int nvmlEventSetWait_v2(struct event_set *set, struct event *out, unsigned timeout_ms)
{
    double until = now() + timeout_ms / 1e3;
    do {
        struct timespec pause = {0, 20 * 1000 * 1000};
        unsigned gpu, number;
        int code = enter("nvmlEventSetWait_v2", NULL);
        int there = !code && xid(set->next, &gpu, &number);
        leave(code);
        if (code)
            return code;
        if (there) {
            set->next++;
            *out = (struct event){(device_t)(intptr_t)(gpu + 1), 8, number, 0xffffffff, 0xffffffff};
            return SUCCESS;
        }
        nanosleep(&pause, NULL);
    } while (now() < until);
    return TIMEOUT;
}

/* ---- GPM: "gpm/<metric> <value>"; the value at the second sample ---------------------------------------- */

struct gpm_sample { device_t device; };
struct gpm_metric { unsigned id; int code; double value; const char *names[3]; };
struct gpm_metrics { unsigned version, count; struct gpm_sample *first, *second; struct gpm_metric metrics[]; };
struct gpm_support { unsigned version, supported; };

int nvmlGpmQueryDeviceSupport(device_t d, struct gpm_support *out)
{
    return read_uint("nvmlGpmQueryDeviceSupport", d, "gpm_supported", &out->supported);
}

int nvmlGpmSampleAlloc(struct gpm_sample **out)
{
    int code = enter("nvmlGpmSampleAlloc", NULL);
    if (!code)
        *out = calloc(1, sizeof **out);
    return leave(code);
}

int nvmlGpmSampleFree(struct gpm_sample *sample)
{
    free(sample);
    return SUCCESS;
}

int nvmlGpmSampleGet(device_t d, struct gpm_sample *sample)
{
    int code = enter("nvmlGpmSampleGet", d);
    sample->device = d;
    return leave(code);
}

int nvmlGpmMigSampleGet(device_t d, unsigned gi, struct gpm_sample *sample)
{
    int code = enter("nvmlGpmMigSampleGet", d);
    sample->device = (device_t)(intptr_t)(MIG_BASE * (gpu_of(d) + 1) + gi);
    return leave(code);
}

int nvmlGpmMetricsGet(struct gpm_metrics *get)
{
    device_t d = get->second ? get->second->device : NULL;
    if (!d || !get->first || !get->first->device)
        return INVALID_ARGUMENT;
    int code = enter("nvmlGpmMetricsGet", d);
    for (unsigned i = 0; !code && i < get->count; i++) {
        char name[32];
        snprintf(name, sizeof name, "gpm/%u", get->metrics[i].id);
        get->metrics[i].code = number(key_of(d, name), &get->metrics[i].value);
    }
    return leave(code);
}
