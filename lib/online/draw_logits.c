/* Truncation of a row of float logits and draws from it, without sorting the vocabulary.
 *
 * What truncation keeps are the first tokens of one order: larger logit first, lower token among
 * equals. So all it has to find is the last of them (pf_cut). Where that lies is found by cutting
 * the range of logits into PF_THRESHOLDS + 1 parts again and again, with one vectorised pass over
 * the row for all thresholds, until few tokens are left to sort.
 *
 * Masses are of exp(scale (l - max)), max the row's largest logit. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "math/pf_rows.h"
#include "online/pf_sampler.h"

enum { TILE = PF_DECODER_TILE, FEW = 64 };

/* A mass that is top_p but for rounding counts as reached; a ratio that is min_p, too. */
#define MASS_SLACK (1 - 1e-6)
#define RATIO_SLACK 1e-12

typedef struct {
    const pf_distributions *d;
    const float *logits, *tile_max;
    const double *tile_scaled;
    double max, scale;
} row;

static row row_of(const pf_distributions *d, int64_t i)
{
    return (row){d,
                 d->logits + i * d->vocab,
                 d->tile_max + i * d->n_tiles,
                 d->tile_scaled + i * d->n_tiles,
                 d->max[i],
                 (double)d->scale};
}

static int64_t tile_size(const row *r, int64_t tile)
{
    int64_t left = r->d->vocab - tile * TILE;
    return left < TILE ? left : TILE;
}

/* The factor from a tile's own unit of mass, at tile_max, to the row's, at max. */
static double tile_factor(const row *r, int64_t tile)
{
    return exp(((double)r->tile_max[tile] - r->max) * r->scale);
}

/* ---- the cut */

/* Kept are the tokens with a logit above `floor`, and of those at it the ones up to `last`. */
typedef struct {
    float floor;
    int64_t last;
} pf_cut;

static const pf_cut keep_all = {-INFINITY, INT64_MAX};

/* The first tokens of the order that are `count` many, or (count 0) have at least `mass`. */
typedef struct {
    int64_t count;
    double mass;
} pf_goal;

static bool reached(const pf_goal *goal, int64_t count, double mass)
{
    return goal->count > 0 ? count >= goal->count : mass >= goal->mass;
}

/* Number and mass of the tokens at each threshold or above. */
static void measure(const row *r, const pf_goal *goal, const float *threshold, int64_t *count,
                    double *mass)
{
    float weight[TILE];
    memset(weight, 0, sizeof weight);
    memset(count, 0, PF_THRESHOLDS * sizeof *count);
    memset(mass, 0, PF_THRESHOLDS * sizeof *mass);
    for (int64_t t = 0; t < r->d->n_tiles; t++) {
        if (!(r->tile_max[t] >= threshold[0]))
            continue;
        const float *l = r->logits + t * TILE;
        if (goal->count == 0)
            (void)pf_row_exp_sum(tile_size(r, t), l, (float)r->max, r->d->scale, weight);
        pf_row_at_least(tile_size(r, t), l, weight, threshold, count, mass);
    }
}

/* The boundary lies among the tokens with low <= logit < high: those above are not enough, with
 * them it is. */
typedef struct {
    float low, high;
    int64_t count_above, count; /* at high or above; at low or above */
    double mass_above;
} range;

/* One pass over the row; false when the range holds a single number. */
static bool narrow(const row *r, const pf_goal *goal, range *g)
{
    float threshold[PF_THRESHOLDS];
    int64_t count[PF_THRESHOLDS], n = 0;
    double mass[PF_THRESHOLDS], width = (double)g->high - (double)g->low;
    for (int64_t j = 0; j < PF_THRESHOLDS; j++) {
        float t = (float)((double)g->low + width * (double)(j + 1) / (PF_THRESHOLDS + 1));
        if (t > (n == 0 ? g->low : threshold[n - 1]) && t < g->high)
            threshold[n++] = t;
    }
    if (n == 0)
        return false;
    for (int64_t j = n; j < PF_THRESHOLDS; j++)
        threshold[j] = g->high;
    measure(r, goal, threshold, count, mass);
    for (int64_t j = n - 1; j >= 0; j--) {
        if (reached(goal, count[j], mass[j])) {
            g->low = threshold[j];
            g->count = count[j];
            return true;
        }
        g->high = threshold[j];
        g->count_above = count[j];
        g->mass_above = mass[j];
    }
    return true;
}

/* What is taken one by one from high down, until the goal is reached. */
typedef struct {
    int64_t count;
    double mass;
} taken;

static bool take(const row *r, const pf_goal *goal, float logit, taken *t)
{
    t->count++;
    t->mass += exp(((double)logit - r->max) * r->scale);
    return reached(goal, t->count, t->mass);
}

/* Few tokens: sorted by insertion, in the order of the truncation. */
static pf_cut cut_few(const row *r, const pf_goal *goal, const range *g)
{
    int32_t order[FEW], index[FEW];
    int64_t n = 0;
    for (int64_t t = 0; t < r->d->n_tiles; t++) {
        if (!(r->tile_max[t] >= g->low))
            continue;
        int64_t found =
            pf_row_between(tile_size(r, t), r->logits + t * TILE, g->low, g->high, FEW - n, index);
        for (int64_t k = 0; k < found; k++) {
            int32_t token = (int32_t)(t * TILE) + index[k];
            int64_t at = n++;
            for (; at > 0 && r->logits[order[at - 1]] < r->logits[token]; at--)
                order[at] = order[at - 1];
            order[at] = token;
        }
    }
    taken so_far = {g->count_above, g->mass_above};
    for (int64_t k = 0; k < n; k++)
        if (take(r, goal, r->logits[order[k]], &so_far) || k == n - 1)
            return (pf_cut){r->logits[order[k]], order[k]};
    return keep_all;
}

/* Many tokens, all with the logit g->low. */
static pf_cut cut_equal(const row *r, const pf_goal *goal, const range *g)
{
    taken so_far = {g->count_above, g->mass_above};
    for (int64_t v = 0; v < r->d->vocab; v++)
        if (r->logits[v] == g->low && take(r, goal, g->low, &so_far))
            return (pf_cut){g->low, v};
    return (pf_cut){g->low, INT64_MAX};
}

static pf_cut find_cut(const row *r, const pf_goal *goal)
{
    /* exp is 0 below: such tokens have no mass and are never drawn. */
    double lowest = fmax(r->max - 88 / r->scale, -FLT_MAX);
    range g = {.low = (float)lowest, .high = nextafterf((float)r->max, INFINITY)};
    float threshold[PF_THRESHOLDS];
    int64_t count[PF_THRESHOLDS];
    double mass[PF_THRESHOLDS];
    for (int64_t j = 0; j < PF_THRESHOLDS; j++)
        threshold[j] = g.low;
    measure(r, goal, threshold, count, mass);
    if (!reached(goal, count[0], mass[0]))
        return keep_all;
    g.count = count[0];
    while (g.count - g.count_above > FEW)
        if (!narrow(r, goal, &g))
            return cut_equal(r, goal, &g);
    return cut_few(r, goal, &g);
}

/* ---- masses and draws */

/* The terms of a tile relative to its largest logit, 0 where not kept; their sum. */
static double tile_terms(const row *r, int64_t tile, const pf_cut *cut, float *term)
{
    int64_t n = tile_size(r, tile);
    const float *l = r->logits + tile * TILE;
    float kept[TILE], floor = cut->floor;
    if (r->tile_max[tile] == -INFINITY) {
        memset(term, 0, (size_t)n * sizeof *term);
        return 0;
    }
    int64_t last = cut->last - tile * TILE; /* within the tile */
    last = last < n ? last : n - 1;
    for (int64_t j = 0; j <= last; j++)
        kept[j] = l[j] >= floor ? l[j] : -INFINITY;
    for (int64_t j = last < 0 ? 0 : last + 1; j < n; j++)
        kept[j] = l[j] > floor ? l[j] : -INFINITY;
    return pf_row_exp_sum(n, kept, r->tile_max[tile], r->d->scale, term);
}

/* Mass of what is kept in a tile, in the row's unit. */
static double tile_mass(const row *r, int64_t tile, const pf_cut *cut)
{
    float term[TILE];
    if (cut->floor == -INFINITY)
        return r->tile_scaled[tile] == 0 ? 0 : r->tile_scaled[tile] * tile_factor(r, tile);
    if (!(r->tile_max[tile] >= cut->floor))
        return 0;
    return tile_terms(r, tile, cut, term) * tile_factor(r, tile);
}

static double kept_mass(const row *r, const pf_cut *cut)
{
    double total = 0;
    for (int64_t t = 0; t < r->d->n_tiles; t++)
        total += tile_mass(r, t, cut);
    return total;
}

static bool is_within(const row *r, double log_ratio, float logit)
{
    return ((double)logit - r->max) * r->scale >= log_ratio - RATIO_SLACK;
}

/* The lowest logit whose probability is at least min_p of the largest. */
static float min_p_floor(const row *r, double min_p)
{
    double log_ratio = log(min_p);
    float floor = (float)fmax(r->max + log_ratio / r->scale, -FLT_MAX);
    while (!is_within(r, log_ratio, floor))
        floor = nextafterf(floor, INFINITY);
    while (floor > -FLT_MAX && is_within(r, log_ratio, nextafterf(floor, -INFINITY)))
        floor = nextafterf(floor, -INFINITY);
    return floor;
}

static pf_cut cut_of(const row *r, const pf_truncation *t)
{
    pf_cut cut = keep_all;
    if (t->top_k > 0 && t->top_k < r->d->vocab)
        cut = find_cut(r, &(pf_goal){.count = t->top_k});
    if (t->top_p < 1) {
        pf_cut by_mass =
            find_cut(r, &(pf_goal){.mass = t->top_p * MASS_SLACK * kept_mass(r, &cut)});
        /* never more than top_k leaves */
        if (by_mass.floor > cut.floor || (by_mass.floor == cut.floor && by_mass.last < cut.last))
            cut = by_mass;
    }
    if (t->min_p > 0) {
        float floor = min_p_floor(r, t->min_p);
        if (floor > cut.floor)
            cut = (pf_cut){floor, INT64_MAX};
    }
    return cut;
}

static int by_u(const void *a, const void *b)
{
    const pf_draw *x = a, *y = b;
    if (x->u != y->u)
        return x->u < y->u ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Gives tokens of one tile to the draws whose u * total lies in it: below its end, or all where it
 * is the last with any mass. How many they are. */
static int64_t draw_in_tile(const row *r, int64_t tile, const pf_cut *cut, double below,
                            double total, double end, int64_t n, pf_draw *draws)
{
    float term[TILE];
    double factor = tile_factor(r, tile);
    int64_t drawn = 0, last = 0;
    (void)tile_terms(r, tile, cut, term);
    for (int64_t j = 0; j < tile_size(r, tile); j++) {
        if (!(term[j] > 0))
            continue;
        below += (double)term[j] * factor;
        last = j;
        while (drawn < n && draws[drawn].u * total < fmin(below, end))
            draws[drawn++].token = (int32_t)(tile * TILE + j);
    }
    /* `below` may end a little under the tile's end. */
    while (drawn < n && draws[drawn].u * total < end)
        draws[drawn++].token = (int32_t)(tile * TILE + last);
    return drawn;
}

static void draw_sorted(const row *r, const pf_cut *cut, double total, int64_t n, pf_draw *draws)
{
    double below = 0;
    int64_t drawn = 0, last = 0;
    for (int64_t t = 0; t < r->d->n_tiles && drawn < n; t++) {
        double mass = tile_mass(r, t, cut);
        if (!(mass > 0))
            continue;
        last = t;
        if (draws[drawn].u * total < below + mass)
            drawn += draw_in_tile(r, t, cut, below, total, below + mass, n - drawn, draws + drawn);
        below += mass;
    }
    if (drawn < n) /* u * total at the very end: the last token of the last tile */
        draw_in_tile(r, last, cut, -INFINITY, 0, 1, n - drawn, draws + drawn);
}

void pf_draw_logits(const pf_distributions *d, int64_t i, const pf_truncation *t, int64_t n,
                    pf_draw *draws)
{
    row r = row_of(d, i);
    pf_cut cut = cut_of(&r, t);
    double total = kept_mass(&r, &cut), log_total = log(total);
    qsort(draws, (size_t)n, sizeof *draws, by_u);
    draw_sorted(&r, &cut, total, n, draws);
    bool plain = pf_truncation_is_none(t);
    for (int64_t k = 0; k < n; k++) {
        double logit = (double)r.logits[draws[k].token];
        draws[k].logp = fmin(logit - d->log_normaliser[i], 0);
        draws[k].log_q = plain ? draws[k].logp : fmin((logit - r.max) * r.scale - log_total, 0);
    }
}

void pf_greedy_logits(const pf_distributions *d, int64_t i, int64_t n, pf_draw *draws)
{
    row r = row_of(d, i);
    int64_t token = 0;
    for (int64_t t = 0; t < d->n_tiles; t++)
        if ((double)r.tile_max[t] == r.max) {
            token = t * TILE;
            break;
        }
    while ((double)r.logits[token] != r.max)
        token++;
    for (int64_t k = 0; k < n; k++) {
        draws[k].token = (int32_t)token;
        draws[k].logp = fmin(r.max - d->log_normaliser[i], 0);
        draws[k].log_q = 0;
    }
}
