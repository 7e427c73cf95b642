/* Comparison tables of the examples: CSV (RFC 4180) in three forms, told apart by the header:
 *   player1,player2,win1,win2[,tie]       counts of a pair of items (further columns are ignored)
 *   winner,loser[,weight]                 one comparison, or `weight` of them
 *   [count,]rank1,rank2,...               rankings, best first; shorter ones leave cells blank
 */
#ifndef EXAMPLE_TABLE_H
#define EXAMPLE_TABLE_H

#include <stdint.h>

typedef struct {
    int64_t n_items;
    char **names;   /* n_items, in order of first appearance */
    int is_ranking; /* which of the two groups below is filled */
    int has_ties;
    int64_t n; /* rows of either */
    int32_t *first, *second;
    double *weight, *label; /* weight: rankings too */
    int64_t *offsets;       /* rankings: n + 1 */
    int32_t *items;         /* rankings: best first */
} table;

/* Reads a file, or `text` when it is not NULL (name is then only for messages). 0 on success; else
 * -1 with one line in error that names file, line, column, what was found and what was expected. */
int table_read(table *out, const char *name, const char *text, char *error, int error_size);
/* A copy in which each byte that is not UTF-8 is U+FFFD, as in the names of a table: items are told
 * apart by their bytes, but what is printed must be text. The caller frees it. */
char *table_utf8(const char *text);

void table_free(table *t);

/* The 1987 season of the American League's eastern division, a table that ships (Agresti,
 * Categorical Data Analysis, 2002, table 10.10). */
extern const char table_baseball_1987[];

#endif
