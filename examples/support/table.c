#include "table.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    char *text, *next, *end; /* the file's bytes; cells are unquoted in place */
    int64_t line, record_line;
    char **cell;
    int n_cells, cell_capacity;
    char *error;
    int error_size;
} csv;

static int fail(csv *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int used = c->record_line > 0 ? snprintf(c->error, (size_t)c->error_size, "%s:%lld: ", c->name,
                                             (long long)c->record_line)
                                  : snprintf(c->error, (size_t)c->error_size, "%s: ", c->name);
    if (used >= 0 && used < c->error_size)
        vsnprintf(c->error + used, (size_t)(c->error_size - used), format, args);
    va_end(args);
    return -1;
}

static void *must(void *pointer)
{
    if (pointer == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return pointer;
}

/* Room for one more element of an array that doubles at powers of two. */
static void *room(void *array, int64_t n, size_t size)
{
    if (n != 0 && (n & (n - 1)) != 0)
        return array;
    return must(realloc(array, (size_t)(n == 0 ? 1 : 2 * n) * size));
}

/* Reads one record into c->cell. 1: read, 0: end of the file, -1: error. */
static int next_record(csv *c)
{
    c->n_cells = 0;
    if (c->next == c->end)
        return 0;
    c->record_line = c->line;
    for (;;) {
        char *in = c->next, *out = in;
        if (c->n_cells == c->cell_capacity) {
            c->cell_capacity = c->cell_capacity == 0 ? 16 : 2 * c->cell_capacity;
            c->cell = must(realloc(c->cell, (size_t)c->cell_capacity * sizeof *c->cell));
        }
        c->cell[c->n_cells++] = out;
        if (in < c->end && *in == '"') {
            for (in++;; in++) {
                if (in == c->end)
                    return fail(c, "a quoted cell has no closing quote");
                if (*in == '"' && (in + 1 == c->end || in[1] != '"'))
                    break;
                if (*in == '"')
                    in++;
                c->line += *in == '\n';
                *out++ = *in;
            }
            in++;
            if (in < c->end && *in != ',' && *in != '\n' && *in != '\r')
                return fail(c, "column %d: \"%c\" after a closing quote, expected a comma",
                            c->n_cells, *in);
        } else {
            while (in < c->end && *in != ',' && *in != '\n' && *in != '\r')
                *out++ = *in++;
        }
        char separator = in < c->end ? *in : '\n';
        if (separator == '\r' && in + 1 < c->end && in[1] == '\n')
            in++;
        c->next = in < c->end ? in + 1 : c->end;
        *out = '\0'; /* out <= the separator, which has been read */
        if (separator != ',') {
            c->line++;
            return 1;
        }
    }
}

static int is_blank(const csv *c)
{
    return c->n_cells == 1 && c->cell[0][strspn(c->cell[0], " \t")] == '\0';
}

/* The number of an item's name: first come, first numbered; open addressing. */
typedef struct {
    int32_t *slot;
    int64_t n_slots;
} name_map;

static uint64_t hash_of(const char *name)
{
    uint64_t h = 5381;
    for (; *name != '\0'; name++)
        h = h * 33 + (unsigned char)*name;
    return h;
}

static int32_t item_of(table *t, name_map *map, const char *name)
{
    if (2 * (t->n_items + 1) > map->n_slots) {
        map->n_slots = map->n_slots == 0 ? 64 : 4 * map->n_slots;
        map->slot = must(realloc(map->slot, (size_t)map->n_slots * sizeof *map->slot));
        memset(map->slot, -1, (size_t)map->n_slots * sizeof *map->slot);
        for (int64_t i = 0; i < t->n_items; i++) {
            uint64_t h = hash_of(t->names[i]);
            while (map->slot[h % (uint64_t)map->n_slots] >= 0)
                h++;
            map->slot[h % (uint64_t)map->n_slots] = (int32_t)i;
        }
    }
    for (uint64_t h = hash_of(name);; h++) {
        int32_t *slot = &map->slot[h % (uint64_t)map->n_slots];
        if (*slot >= 0 && strcmp(t->names[*slot], name) != 0)
            continue;
        if (*slot < 0) {
            t->names = room(t->names, t->n_items, sizeof *t->names);
            t->names[t->n_items] = must(strdup(name));
            *slot = (int32_t)t->n_items++;
        }
        return *slot;
    }
}

static int number(csv *c, int column, const char *title, double *out)
{
    const char *text = c->cell[column];
    char *end;
    *out = strtod(text, &end);
    while (isspace((unsigned char)*end))
        end++;
    if (text[0] == '\0' || *end != '\0' || !isfinite(*out) || *out < 0)
        return fail(c, "column \"%s\": \"%s\", expected a number >= 0", title, text);
    return 0;
}

static void add_comparison(table *t, int32_t first, int32_t second, double weight, double label)
{
    if (weight == 0)
        return;
    t->first = room(t->first, t->n, sizeof *t->first);
    t->second = room(t->second, t->n, sizeof *t->second);
    t->weight = room(t->weight, t->n, sizeof *t->weight);
    t->label = room(t->label, t->n, sizeof *t->label);
    t->first[t->n] = first;
    t->second[t->n] = second;
    t->weight[t->n] = weight;
    t->label[t->n++] = label;
    t->has_ties |= label == 0.5;
}

static int same(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++)
        if (tolower((unsigned char)*a) != tolower((unsigned char)*b))
            return 0;
    return *a == *b;
}

/* The header's titles: without spaces around them, each once. */
static int read_header(csv *c)
{
    int status = next_record(c);
    while (status > 0 && is_blank(c))
        status = next_record(c);
    if (status == 0) {
        c->record_line = 0;
        return fail(c, "the file is empty, expected a header");
    }
    for (int i = 0; i < c->n_cells && status > 0; i++) {
        char *title = c->cell[i] + strspn(c->cell[i], " \t");
        size_t n = strlen(title);
        while (n > 0 && (title[n - 1] == ' ' || title[n - 1] == '\t'))
            n--;
        title[n] = '\0';
        c->cell[i] = title;
        for (int j = 0; j < i && n > 0; j++)
            if (same(c->cell[j], title))
                return fail(c, "column %d has the title \"%s\" of column %d", i + 1, title, j + 1);
    }
    return status;
}

static int column_of(const csv *c, const char *title)
{
    for (int i = 0; i < c->n_cells; i++)
        if (same(c->cell[i], title))
            return i;
    return -1;
}

/* Both named items of a record, which must differ. */
static int two_items(csv *c, table *t, name_map *map, int a, int b, int32_t item[2])
{
    if (c->cell[a][0] == '\0' || c->cell[b][0] == '\0')
        return fail(c, "column %d is empty, expected a name", (c->cell[a][0] == '\0' ? a : b) + 1);
    if (strcmp(c->cell[a], c->cell[b]) == 0)
        return fail(c, "\"%s\" meets itself, expected two different names", c->cell[a]);
    item[0] = item_of(t, map, c->cell[a]);
    item[1] = item_of(t, map, c->cell[b]);
    return 0;
}

static int read_counts(csv *c, table *t, name_map *map)
{
    int a = column_of(c, "player1"), b = column_of(c, "player2"), tie = column_of(c, "tie");
    int win1 = column_of(c, "win1"), win2 = column_of(c, "win2"), n_cells = c->n_cells, status;
    tie = tie >= 0 ? tie : column_of(c, "ties");
    tie = tie >= 0 ? tie : column_of(c, "tied");
    while ((status = next_record(c)) > 0) {
        int32_t item[2];
        double w1, w2, ties = 0;
        if (is_blank(c))
            continue;
        if (c->n_cells != n_cells)
            return fail(c, "%d cells, expected %d as in the header", c->n_cells, n_cells);
        if (two_items(c, t, map, a, b, item) < 0 || number(c, win1, "win1", &w1) < 0 ||
            number(c, win2, "win2", &w2) < 0 || (tie >= 0 && number(c, tie, "tie", &ties) < 0))
            return -1;
        add_comparison(t, item[0], item[1], w1, 1);
        add_comparison(t, item[0], item[1], w2, 0);
        add_comparison(t, item[0], item[1], ties, 0.5);
    }
    return status;
}

static int read_winners(csv *c, table *t, name_map *map)
{
    int a = column_of(c, "winner"), b = column_of(c, "loser"), w = column_of(c, "weight");
    int n_cells = c->n_cells, status;
    while ((status = next_record(c)) > 0) {
        int32_t item[2];
        double weight = 1;
        if (is_blank(c))
            continue;
        if (c->n_cells != n_cells)
            return fail(c, "%d cells, expected %d as in the header", c->n_cells, n_cells);
        if (two_items(c, t, map, a, b, item) < 0 || (w >= 0 && number(c, w, "weight", &weight) < 0))
            return -1;
        add_comparison(t, item[0], item[1], weight, 1);
    }
    return status;
}

static int read_rankings(csv *c, table *t, name_map *map)
{
    int counted = same(c->cell[0], "count"), n_cells = c->n_cells, status;
    int64_t n_items = 0;
    t->is_ranking = 1;
    t->offsets = room(NULL, 0, sizeof *t->offsets);
    t->offsets[0] = 0;
    while ((status = next_record(c)) > 0) {
        double weight = 1;
        int k = c->n_cells;
        if (is_blank(c))
            continue;
        if (c->n_cells > n_cells)
            return fail(c, "%d cells, expected at most %d as in the header", c->n_cells, n_cells);
        if (counted && number(c, 0, "count", &weight) < 0)
            return -1;
        while (k > counted && c->cell[k - 1][0] == '\0')
            k--;
        for (int i = counted; i < k; i++) {
            if (c->cell[i][0] == '\0')
                return fail(c, "column %d is empty, but a later one is not", i + 1);
            t->items = room(t->items, n_items, sizeof *t->items);
            t->items[n_items] = item_of(t, map, c->cell[i]);
            for (int64_t j = t->offsets[t->n]; j < n_items; j++)
                if (t->items[j] == t->items[n_items])
                    return fail(c, "column %d: \"%s\" stands twice in one ranking", i + 1,
                                c->cell[i]);
            n_items++;
        }
        t->weight = room(t->weight, t->n, sizeof *t->weight);
        t->weight[t->n++] = weight;
        t->offsets = room(t->offsets, t->n, sizeof *t->offsets);
        t->offsets[t->n] = n_items;
    }
    return status;
}

/* rank1,rank2,... after an optional "count": any letters, then 1, 2, 3, ... */
static int is_ranking_header(const csv *c)
{
    int counted = same(c->cell[0], "count");
    for (int i = counted; i < c->n_cells; i++) {
        const char *digits = c->cell[i];
        while (*digits != '\0' && !isdigit((unsigned char)*digits))
            digits++;
        if (*digits == '\0' || atoi(digits) != i - counted + 1)
            return 0;
    }
    return c->n_cells > counted;
}

static char *read_all(csv *c, size_t *n)
{
    FILE *file = fopen(c->name, "rb");
    char *text = NULL;
    *n = 0;
    for (size_t got = 1; file != NULL && got > 0; *n += got) {
        text = must(realloc(text, *n + (1 << 16) + 1));
        got = fread(text + *n, 1, 1 << 16, file);
    }
    if (file == NULL || ferror(file)) {
        fail(c, "%s", strerror(errno));
        free(text);
        text = NULL;
    }
    if (file != NULL)
        fclose(file);
    return text;
}

/* Bytes of the UTF-8 character that text starts with, 0 if it starts with none (RFC 3629: no
 * overlong forms, no surrogates, nothing above U+10FFFF). */
static int utf8_length(const unsigned char *text)
{
    unsigned char c = text[0];
    int n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;
    if (n == 4 && (c < 0xf0 || c > 0xf4))
        return 0;
    for (int i = 1; i < n; i++)
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    if ((c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] > 0x9f) ||
        (c == 0xf0 && text[1] < 0x90) || (c == 0xf4 && text[1] > 0x8f))
        return 0;
    return n;
}

char *table_utf8(const char *text)
{
    char *copy = must(malloc(3 * strlen(text) + 1)), *out = copy;
    while (*text != '\0') {
        int n = utf8_length((const unsigned char *)text);
        memcpy(out, n == 0 ? "\xef\xbf\xbd" : text, (size_t)(n == 0 ? 3 : n));
        out += n == 0 ? 3 : n;
        text += n == 0 ? 1 : n;
    }
    *out = '\0';
    return copy;
}

int table_read(table *out, const char *name, const char *text, char *error, int error_size)
{
    csv c = {.name = name, .line = 1, .error = error, .error_size = error_size};
    table t = {0};
    name_map map = {0};
    size_t n = text == NULL ? 0 : strlen(text);
    c.text = text == NULL ? read_all(&c, &n) : must(strdup(text));
    if (c.text == NULL)
        return -1;
    c.next = c.text;
    c.end = c.text + n;
    if (n >= 3 && memcmp(c.text, "\xef\xbb\xbf", 3) == 0)
        c.next += 3;
    int status = memchr(c.text, '\0', n) != NULL
                     ? fail(&c, "the file has a byte 0, expected text in UTF-8")
                     : read_header(&c);
    if (status > 0 && column_of(&c, "player1") >= 0 && column_of(&c, "player2") >= 0 &&
        column_of(&c, "win1") >= 0 && column_of(&c, "win2") >= 0)
        status = read_counts(&c, &t, &map);
    else if (status > 0 && column_of(&c, "winner") >= 0 && column_of(&c, "loser") >= 0)
        status = read_winners(&c, &t, &map);
    else if (status > 0 && is_ranking_header(&c))
        status = read_rankings(&c, &t, &map);
    else if (status > 0)
        status = fail(&c,
                      "the header starts with \"%s\", expected player1,player2,win1,win2[,tie] or "
                      "winner,loser[,weight] or [count,]rank1,rank2,...",
                      c.cell[0]);
    if (status == 0 && t.n_items < 2) {
        c.record_line = 0;
        status = fail(&c, "%lld items, expected at least 2", (long long)t.n_items);
    }
    for (int64_t i = 0; i < t.n_items; i++) {
        char *shown = table_utf8(t.names[i]);
        free(t.names[i]);
        t.names[i] = shown;
    }
    free(map.slot);
    free(c.cell);
    free(c.text);
    if (status < 0)
        table_free(&t);
    else
        *out = t;
    return status;
}

void table_free(table *t)
{
    for (int64_t i = 0; i < t->n_items; i++)
        free(t->names[i]);
    free(t->names);
    free(t->first);
    free(t->second);
    free(t->weight);
    free(t->label);
    free(t->offsets);
    free(t->items);
    memset(t, 0, sizeof *t);
}

const char table_baseball_1987[] = "player1,player2,win1,win2\n"
                                   "Milwaukee,Detroit,4,3\n"
                                   "Milwaukee,Toronto,4,2\n"
                                   "Milwaukee,New York,4,3\n"
                                   "Milwaukee,Boston,6,1\n"
                                   "Milwaukee,Cleveland,4,2\n"
                                   "Milwaukee,Baltimore,6,0\n"
                                   "Detroit,Milwaukee,3,3\n"
                                   "Detroit,Toronto,4,2\n"
                                   "Detroit,New York,4,3\n"
                                   "Detroit,Boston,6,0\n"
                                   "Detroit,Cleveland,6,1\n"
                                   "Detroit,Baltimore,4,3\n"
                                   "Toronto,Milwaukee,2,5\n"
                                   "Toronto,Detroit,4,3\n"
                                   "Toronto,New York,2,4\n"
                                   "Toronto,Boston,4,3\n"
                                   "Toronto,Cleveland,4,2\n"
                                   "Toronto,Baltimore,6,0\n"
                                   "New York,Milwaukee,3,3\n"
                                   "New York,Detroit,5,1\n"
                                   "New York,Toronto,2,5\n"
                                   "New York,Boston,4,3\n"
                                   "New York,Cleveland,4,2\n"
                                   "New York,Baltimore,6,1\n"
                                   "Boston,Milwaukee,5,1\n"
                                   "Boston,Detroit,2,5\n"
                                   "Boston,Toronto,3,3\n"
                                   "Boston,New York,4,2\n"
                                   "Boston,Cleveland,5,2\n"
                                   "Boston,Baltimore,6,0\n"
                                   "Cleveland,Milwaukee,2,5\n"
                                   "Cleveland,Detroit,3,3\n"
                                   "Cleveland,Toronto,3,4\n"
                                   "Cleveland,New York,4,3\n"
                                   "Cleveland,Boston,4,2\n"
                                   "Cleveland,Baltimore,2,4\n"
                                   "Baltimore,Milwaukee,2,5\n"
                                   "Baltimore,Detroit,1,5\n"
                                   "Baltimore,Toronto,1,6\n"
                                   "Baltimore,New York,2,4\n"
                                   "Baltimore,Boston,1,6\n"
                                   "Baltimore,Cleveland,3,4\n";
