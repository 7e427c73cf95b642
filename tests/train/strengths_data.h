/* Tables of counts and what R fits on them (glm, BradleyTerry2, PlackettLuce), for the tests of
 * strengths. */
#ifndef STRENGTHS_DATA_H
#define STRENGTHS_DATA_H

#include "pf_test.h"

/* Results of pairs as one row an outcome: a wins, b wins, tie. */
typedef struct {
    int64_t n;
    int32_t first[128], second[128];
    double weight[128], label[128];
} table;

static inline void table_add(table *t, int a, int b, double weight, double label)
{
    t->first[t->n] = a;
    t->second[t->n] = b;
    t->weight[t->n] = weight;
    t->label[t->n++] = label;
}

static inline prefopt_comparisons table_view(const table *t, int64_t n_items)
{
    return (prefopt_comparisons){.struct_size = sizeof(prefopt_comparisons),
                                 .n_items = n_items,
                                 .n = t->n,
                                 .first = t->first,
                                 .second = t->second,
                                 .weight = t->weight,
                                 .label = t->label};
}

/* Agresti 2002, Categorical Data Analysis, table 10.10: the American League, 1987. 0 Milwaukee, 1
 * Detroit, 2 Toronto, 3 New York, 4 Boston, 5 Cleveland, 6 Baltimore; wins of the row's team at
 * home and lost at home. */
static inline table baseball(void)
{
    static const int games[42][4] = {
        {0, 1, 4, 3}, {0, 2, 4, 2}, {0, 3, 4, 3}, {0, 4, 6, 1}, {0, 5, 4, 2}, {0, 6, 6, 0},
        {1, 0, 3, 3}, {1, 2, 4, 2}, {1, 3, 4, 3}, {1, 4, 6, 0}, {1, 5, 6, 1}, {1, 6, 4, 3},
        {2, 0, 2, 5}, {2, 1, 4, 3}, {2, 3, 2, 4}, {2, 4, 4, 3}, {2, 5, 4, 2}, {2, 6, 6, 0},
        {3, 0, 3, 3}, {3, 1, 5, 1}, {3, 2, 2, 5}, {3, 4, 4, 3}, {3, 5, 4, 2}, {3, 6, 6, 1},
        {4, 0, 5, 1}, {4, 1, 2, 5}, {4, 2, 3, 3}, {4, 3, 4, 2}, {4, 5, 5, 2}, {4, 6, 6, 0},
        {5, 0, 2, 5}, {5, 1, 3, 3}, {5, 2, 3, 4}, {5, 3, 4, 3}, {5, 4, 4, 2}, {5, 6, 2, 4},
        {6, 0, 2, 5}, {6, 1, 1, 5}, {6, 2, 1, 6}, {6, 3, 2, 4}, {6, 4, 1, 6}, {6, 5, 3, 4}};
    table t = {0};
    for (int i = 0; i < 42; i++) {
        table_add(&t, games[i][0], games[i][1], games[i][2], 1);
        table_add(&t, games[i][0], games[i][1], games[i][3], 0);
    }
    return t;
}

static inline table with_ties(const int (*rows)[5], int n)
{
    table t = {0};
    for (int i = 0; i < n; i++) {
        table_add(&t, rows[i][0], rows[i][1], rows[i][2], 1);
        table_add(&t, rows[i][0], rows[i][1], rows[i][3], 0);
        table_add(&t, rows[i][0], rows[i][1], rows[i][4], 0.5);
    }
    return t;
}

/* Students' preferences among schools (R package BradleyTerry2, data CEMS, summed). 0 London, 1
 * Barcelona, 2 Milano, 3 Paris, 4 St.Gallen, 5 Stockholm. */
static inline table schools(void)
{
    static const int rows[15][5] = {
        {0, 1, 217, 67, 19},  {2, 1, 104, 132, 67}, {3, 1, 157, 109, 37}, {4, 1, 144, 134, 25},
        {0, 2, 221, 56, 26},  {3, 2, 121, 59, 32},  {0, 3, 186, 91, 26},  {0, 4, 208, 73, 22},
        {2, 4, 135, 140, 28}, {3, 4, 165, 119, 19}, {1, 5, 172, 90, 41},  {0, 5, 250, 34, 19},
        {2, 5, 157, 100, 46}, {3, 5, 203, 70, 30},  {4, 5, 155, 98, 50}};
    return with_ties(rows, 15);
}

/* Davidson 1970, table 1: brands of chocolate pudding. */
static inline table pudding(void)
{
    static const int rows[15][5] = {{0, 1, 19, 22, 16}, {0, 2, 16, 19, 12}, {1, 2, 19, 19, 10},
                                    {0, 3, 18, 23, 13}, {1, 3, 23, 19, 9},  {2, 3, 19, 20, 15},
                                    {0, 4, 13, 19, 18}, {1, 4, 16, 20, 12}, {2, 4, 16, 15, 17},
                                    {3, 4, 17, 14, 16}, {0, 5, 18, 21, 12}, {1, 5, 22, 20, 12},
                                    {2, 5, 13, 18, 10}, {3, 5, 14, 19, 18}, {4, 5, 11, 21, 12}};
    return with_ties(rows, 15);
}

static inline prefopt_strengths_options strengths_options(void)
{
    prefopt_strengths_options o;
    OK(prefopt_strengths_options_init(&o, sizeof o));
    return o;
}

static inline prefopt_strengths_summary summary_of(const prefopt_strengths *fit)
{
    prefopt_strengths_summary s = {.struct_size = sizeof s};
    OK(prefopt_strengths_summarise(fit, &s));
    return s;
}

#endif
