/* The bytes of a file, out of gzip where it is that. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pf_file.h"
#include "data/pf_input.h"
#include "pf_config.h"

#if PF_HAVE_GZIP
#include <zlib.h>
#endif

enum { RAW_SIZE = 1 << 16 };

struct pf_input {
    prefopt_context *context;
    const char *path;
    int descriptor;
    bool started, ended; /* the first bytes were looked at; the file has no more */
    bool gzip, member;   /* is compressed; between a member's header and its end */
    int64_t size, got;   /* bytes of the file (0: not known), and those read so far */
    int64_t before;      /* bytes of the file that came before raw */
    int64_t n, at;       /* raw[at .. n) is still to be taken */
#if PF_HAVE_GZIP
    z_stream stream;
#endif
    char raw[RAW_SIZE];
};

static int32_t read_some(pf_input *in, char *bytes, int64_t room, int64_t *got)
{
    ssize_t n;
    do
        n = read(in->descriptor, bytes, (size_t)(room < (1 << 30) ? room : 1 << 30));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return pf_fail_errno(errno, "reading", in->path);
    in->ended = n == 0;
    in->got += n;
    *got = n;
    return PREFOPT_OK;
}

#if PF_HAVE_GZIP

/* More raw bytes, when all were taken. */
static int32_t refill(pf_input *in)
{
    in->before += in->n;
    in->n = in->at = 0;
    return read_some(in, in->raw, RAW_SIZE, &in->n);
}

static void *allocate(void *context, uInt n, uInt size) { return pf_alloc(context, n, size); }

static void release(void *context, void *pointer) { pf_free(context, pointer); }

static int32_t begin_gzip(pf_input *in)
{
    enum { GZIP_WINDOW = 15 + 16 };
    in->stream = (z_stream){.zalloc = allocate, .zfree = release, .opaque = in->context};
    if (inflateInit2(&in->stream, GZIP_WINDOW) != Z_OK)
        return pf_fail(PREFOPT_ERR_MEMORY, "%s: no memory to decompress it", in->path);
    in->gzip = true;
    return PREFOPT_OK;
}

/* zlib's answer to a step, as ours. */
static int32_t check_step(pf_input *in, int answer)
{
    if (answer == Z_OK || answer == Z_STREAM_END || answer == Z_BUF_ERROR)
        return PREFOPT_OK;
    if (answer == Z_MEM_ERROR)
        return pf_fail(PREFOPT_ERR_MEMORY, "%s: no memory to decompress it", in->path);
    return pf_fail(PREFOPT_ERR_FORMAT, "%s: the gzip data is damaged at or before byte %lld: %s",
                   in->path, (long long)(in->before + in->at),
                   in->stream.msg != NULL ? in->stream.msg : "a dictionary is asked for");
}

static int32_t read_gzip(pf_input *in, char *bytes, int64_t room, int64_t *got)
{
    const int64_t most = room < (1 << 30) ? room : 1 << 30;
    z_stream *z = &in->stream;
    *got = 0;
    while (*got == 0) {
        if (in->at == in->n && !in->ended)
            PF_TRY(refill(in));
        if (in->at == in->n && !in->member)
            return PREFOPT_OK;
        if (!in->member && inflateReset(z) != Z_OK)
            return pf_fail(PREFOPT_ERR_FORMAT, "%s: zlib could not start again", in->path);
        in->member = true;
        z->next_in = (unsigned char *)in->raw + in->at;
        z->avail_in = (uInt)(in->n - in->at);
        z->next_out = (unsigned char *)bytes;
        z->avail_out = (uInt)most;
        int answer = inflate(z, Z_NO_FLUSH);
        in->at = in->n - z->avail_in;
        PF_TRY(check_step(in, answer));
        in->member = answer != Z_STREAM_END;
        *got = most - z->avail_out;
        if (*got == 0 && in->member && in->at == in->n && in->ended)
            return pf_fail(PREFOPT_ERR_FORMAT,
                           "%s: the gzip data ends too early, at byte %lld: the file was cut off",
                           in->path, (long long)(in->before + in->n));
    }
    return PREFOPT_OK;
}

static void end_gzip(pf_input *in)
{
    if (in->gzip)
        inflateEnd(&in->stream);
}

#else

static int32_t begin_gzip(pf_input *in)
{
    return pf_fail(PREFOPT_ERR_UNSUPPORTED,
                   "%s: is compressed with gzip, and this library was built without", in->path);
}

static int32_t read_gzip(pf_input *in, char *bytes, int64_t room, int64_t *got)
{
    (void)bytes, (void)room, (void)got;
    return begin_gzip(in);
}

static void end_gzip(pf_input *in) { (void)in; }

#endif

int32_t pf_input_open(pf_input **out, prefopt_context *context, const char *path)
{
    pf_input *in = pf_alloc(context, 1, sizeof *in);
    if (in == NULL)
        return PREFOPT_ERR_MEMORY;
    in->context = context;
    in->path = path;
    in->started = in->ended = in->gzip = in->member = false;
    in->before = in->n = in->at = in->size = in->got = 0;
    in->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (in->descriptor < 0) {
        int error = errno;
        pf_free(context, in);
        return pf_fail_errno(error, "opening", path);
    }
    struct stat info;
    if (fstat(in->descriptor, &info) == 0 && S_ISREG(info.st_mode))
        in->size = info.st_size;
    *out = in;
    return PREFOPT_OK;
}

/* The first two bytes say what the file is; a pipe may give them one at a time. */
static int32_t look(pf_input *in)
{
    int64_t got = 0;
    while (in->n < 2 && !in->ended) {
        PF_TRY(read_some(in, in->raw + in->n, RAW_SIZE - in->n, &got));
        in->n += got;
    }
    in->started = true;
    if (in->n >= 2 && memcmp(in->raw, "\x1f\x8b", 2) == 0)
        return begin_gzip(in);
    return PREFOPT_OK;
}

int32_t pf_input_read(pf_input *in, char *bytes, int64_t room, int64_t *got)
{
    if (!in->started)
        PF_TRY(look(in));
    if (in->gzip)
        return read_gzip(in, bytes, room, got);
    if (in->at == in->n) {
        *got = 0;
        return in->ended ? PREFOPT_OK : read_some(in, bytes, room, got);
    }
    *got = in->n - in->at < room ? in->n - in->at : room;
    memcpy(bytes, in->raw + in->at, (size_t)*got);
    in->at += *got;
    return PREFOPT_OK;
}

double pf_input_progress(const pf_input *in)
{
    int64_t taken = in->got - (in->n - in->at);
    return taken < in->size ? (double)taken / (double)in->size : in->size > 0;
}

void pf_input_close(pf_input *in)
{
    if (in == NULL)
        return;
    end_gzip(in);
    close(in->descriptor);
    pf_free(in->context, in);
}
