#include "gap_record.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void __attribute__((noreturn)) give_up(const char *what, const char *path)
{
    perror(path == NULL ? what : path);
    exit(1);
}

void gap_put(gap_record *r, double value, const char *format, ...)
{
    if (r->n == r->capacity) {
        r->capacity = r->capacity == 0 ? 64 : 2 * r->capacity;
        r->values = realloc(r->values, (size_t)r->capacity * sizeof *r->values);
        if (r->values == NULL)
            give_up("results", NULL);
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->values[r->n].key, sizeof r->values->key, format, arguments);
    va_end(arguments);
    r->values[r->n++].value = value;
}

double gap_get(const gap_record *r, const char *format, ...)
{
    char key[sizeof r->values->key];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->values[i].key, key) == 0)
            return r->values[i].value;
    return NAN;
}

void gap_record_free(gap_record *r)
{
    free(r->values);
    memset(r, 0, sizeof *r);
}

/* {"job":"text","key":number,...}: the lines that gap_results_append writes, and no others. */
static int read_line(gap_record *r, char *line)
{
    static const char begin[] = "{\"job\":\"";
    char *end;
    if (strncmp(line, begin, sizeof begin - 1) != 0 ||
        (end = strchr(line + sizeof begin - 1, '"')) == NULL)
        return 0;
    *end++ = '\0';
    snprintf(r->job, sizeof r->job, "%s", line + sizeof begin - 1);
    while (*end == ',') {
        char *key = end + 2;
        if (end[1] != '"' || (end = strchr(key, '"')) == NULL || end[1] != ':')
            return 0;
        *end = '\0';
        char *number = end + 2;
        double value =
            strncmp(number, "null", 4) == 0 ? (end = number + 4, NAN) : strtod(number, &end);
        gap_put(r, value, "%s", key);
    }
    return *end == '}';
}

void gap_results_read(gap_results *out, const char *path, int goes_on)
{
    memset(out, 0, sizeof *out);
    FILE *file = fopen(path, goes_on ? "r+" : "r");
    char *line = NULL;
    size_t capacity = 0;
    long whole = 0;
    if (file == NULL && (!goes_on || errno != ENOENT))
        give_up("results", path);
    if (file == NULL)
        return;
    for (ssize_t n; (n = getline(&line, &capacity, file)) > 0 && line[n - 1] == '\n';) {
        gap_record record = {.n = 0};
        if (!read_line(&record, line)) {
            fprintf(stderr, "%s: line %d is no result of this program\n", path, out->n + 1);
            exit(1);
        }
        out->records = realloc(out->records, (size_t)(out->n + 1) * sizeof *out->records);
        if (out->records == NULL)
            give_up("results", NULL);
        out->records[out->n++] = record;
        whole = ftell(file);
    }
    if (goes_on && ftruncate(fileno(file), whole) != 0)
        give_up("results", path);
    free(line);
    fclose(file);
}

void gap_results_reach(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || close(fd) != 0)
        give_up("results", path);
}

void gap_results_free(gap_results *r)
{
    for (int i = 0; i < r->n; i++)
        gap_record_free(&r->records[i]);
    free(r->records);
    memset(r, 0, sizeof *r);
}

const gap_record *gap_results_find(const gap_results *r, const char *job)
{
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->records[i].job, job) == 0)
            return &r->records[i];
    return NULL;
}

void gap_results_append(const char *path, const gap_record *record)
{
    char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    if (memory == NULL)
        give_up("results", NULL);
    fprintf(memory, "{\"job\":\"%s\"", record->job);
    for (int i = 0; i < record->n; i++)
        if (isfinite(record->values[i].value))
            fprintf(memory, ",\"%s\":%.9g", record->values[i].key, record->values[i].value);
        else
            fprintf(memory, ",\"%s\":null", record->values[i].key);
    fprintf(memory, "}\n");
    if (fclose(memory) != 0)
        give_up("results", NULL);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0 || write(fd, text, size) != (ssize_t)size || fsync(fd) != 0 || close(fd) != 0)
        give_up("results", path);
    free(text);
}
