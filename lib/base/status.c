/* Status names, version and the thread's error text. */
#include <stdarg.h>
#include <stdio.h>

#include "base/pf_base.h"

enum { ERROR_TEXT_SIZE = 1024 };
static _Thread_local char error_text[ERROR_TEXT_SIZE];

uint32_t prefopt_version(void)
{
    return PREFOPT_VERSION_MAJOR << 16 | PREFOPT_VERSION_MINOR << 8 | PREFOPT_VERSION_PATCH;
}

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *prefopt_version_string(void)
{
    return TEXT(PREFOPT_VERSION_MAJOR) "." TEXT(PREFOPT_VERSION_MINOR) "." TEXT(
        PREFOPT_VERSION_PATCH);
}

const char *prefopt_status_name(int32_t status)
{
    switch (status) {
#define NAME(code)                                                                                 \
    case code:                                                                                     \
        return #code
        NAME(PREFOPT_OK);
        NAME(PREFOPT_STOPPED);
        NAME(PREFOPT_ERR_ARGUMENT);
        NAME(PREFOPT_ERR_MEMORY);
        NAME(PREFOPT_ERR_IO);
        NAME(PREFOPT_ERR_FORMAT);
        NAME(PREFOPT_ERR_NUMERIC);
        NAME(PREFOPT_ERR_UNSUPPORTED);
        NAME(PREFOPT_ERR_STATE);
        NAME(PREFOPT_ERR_VERSION);
        NAME(PREFOPT_ERR_CALLBACK);
        NAME(PREFOPT_ERR_UNBOUNDED);
#undef NAME
    default:
        return "PREFOPT_UNKNOWN";
    }
}

const char *prefopt_last_error(void) { return error_text; }

int32_t pf_fail(int32_t code, const char *format, ...)
{
    /* Formatted aside first: an argument may be the error text itself. */
    char text[ERROR_TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(error_text, text, sizeof text);
    return code;
}

int32_t pf_fail_in(int32_t code, const char *format, ...)
{
    char before[ERROR_TEXT_SIZE / 2], text[2 * ERROR_TEXT_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(before, sizeof before, format, args);
    va_end(args);
    snprintf(text, sizeof text, "%s: %s", before, error_text);
    text[ERROR_TEXT_SIZE - 1] = '\0';
    memcpy(error_text, text, sizeof error_text);
    return code;
}
