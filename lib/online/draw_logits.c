/* Truncation of a row of float logits and draws from it, without sorting the vocabulary.
 *
 * What truncation keeps are the first tokens of one order: larger logit first, lower token among
 * equals. So all it has to find is the last of them (pf_cut). Vectorised passes over the row, each
 * for PF_THRESHOLDS thresholds at once, close in on it until few tokens are left to sort; the
 * thresholds lie close about the place that interpolation gives.
 *
 * Masses are of exp(scale (l - max)), max the row's largest logit. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "math/pf_rows.h"
#include "online/pf_sampler.h"

enum { TILE = PF_DECODER_TILE, FEW = 256 };

/* A mass that is top_p but for rounding counts as reached; a ratio that is min_p, too. */
#define MASS_SLACK (1 - 1e-6)
#define RATIO_SLACK 1e-12

typedef struct {
    const pf_distributions *d;
    const float *logits, *tile_max;
    double *tile_scaled;
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
    double mass_above, mass;
} range;

/* One pass over the row for n ascending thresholds; the range becomes the part between two of them
 * that holds the boundary. False when all of them are too high. */
static bool narrow(const row *r, const pf_goal *goal, int64_t n, float *threshold, range *g)
{
    int64_t count[PF_THRESHOLDS];
    double mass[PF_THRESHOLDS];
    for (int64_t j = n; j < PF_THRESHOLDS; j++)
        threshold[j] = INFINITY;
    measure(r, goal, threshold, count, mass);
    for (int64_t j = n - 1; j >= 0; j--) {
        if (reached(goal, count[j], mass[j])) {
            g->low = threshold[j];
            g->count = count[j];
            g->mass = mass[j];
            return true;
        }
        g->high = threshold[j];
        g->count_above = count[j];
        g->mass_above = mass[j];
    }
    return false;
}

/* Adds t to the thresholds if it divides the range further. */
static void add_threshold(const range *g, double t, int64_t *n, float *threshold)
{
    float x = (float)t;
    if (x > (*n == 0 ? g->low : threshold[*n - 1]) && x < g->high)
        threshold[(*n)++] = x;
}

/* Closer and closer about the place where the goal would be if the tokens lay evenly; or evenly,
 * which always gets on. How many thresholds; 0: the range holds a single number. */
static int64_t choose(const pf_goal *goal, const range *g, bool evenly, float *threshold)
{
    static const double about[PF_THRESHOLDS] = {-0.2,   -0.04, -0.01, -0.0025,
                                                0.0025, 0.01,  0.04,  0.2};
    double width = (double)g->high - (double)g->low, part;
    if (goal->count > 0)
        part = (double)(g->count - goal->count) / (double)(g->count - g->count_above);
    else
        part = (g->mass - goal->mass) / (g->mass - g->mass_above);
    int64_t n = 0;
    for (int64_t j = 0; j < PF_THRESHOLDS; j++)
        add_threshold(g,
                      (double)g->low + width * (evenly ? (double)(j + 1) / (PF_THRESHOLDS + 1)
                                                       : part + about[j]),
                      &n, threshold);
    if (n == 0 && !evenly)
        return choose(goal, g, true, threshold);
    return n;
}

/* The k-th largest of the tiles' maxima (-INFINITY: there are not so many): k tokens are there or
 * above. */
static float tile_bound(const row *r, int64_t k)
{
    enum { MOST = 128 };
    float largest[MOST];
    int64_t n = 0;
    if (k > MOST || k > r->d->n_tiles)
        return -INFINITY;
    for (int64_t t = 0; t < r->d->n_tiles; t++) {
        float max = r->tile_max[t];
        if (n == k && max <= largest[n - 1])
            continue;
        int64_t at = n < k ? n++ : n - 1;
        for (; at > 0 && largest[at - 1] < max; at--)
            largest[at] = largest[at - 1];
        largest[at] = max;
    }
    return largest[k - 1];
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

/* Puts tokens, given in rising order, into the order of the truncation (Shell's sort). */
static void sort_tokens(const row *r, int64_t n, int32_t *token)
{
    static const int64_t gaps[] = {57, 23, 10, 4, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++)
        for (int64_t i = gaps[g], at; i < n; i++) {
            int32_t moving = token[i];
            float logit = r->logits[moving];
            for (at = i; at >= gaps[g]; at -= gaps[g]) {
                int32_t other = token[at - gaps[g]];
                if (r->logits[other] > logit || (r->logits[other] == logit && other < moving))
                    break;
                token[at] = other;
            }
            token[at] = moving;
        }
}

static pf_cut cut_few(const row *r, const pf_goal *goal, const range *g)
{
    int32_t order[FEW], index[FEW];
    int64_t n = 0;
    for (int64_t t = 0; t < r->d->n_tiles; t++) {
        if (!(r->tile_max[t] >= g->low))
            continue;
        int64_t found =
            pf_row_between(tile_size(r, t), r->logits + t * TILE, g->low, g->high, FEW - n, index);
        for (int64_t k = 0; k < found; k++)
            order[n++] = (int32_t)(t * TILE) + index[k];
    }
    sort_tokens(r, n, order);
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

/* bound: a logit at or below the boundary's, -INFINITY where none is known. */
static pf_cut find_cut(const row *r, const pf_goal *goal, float bound)
{
    /* exp is 0 farther below the maximum: such tokens have no mass and are never drawn. */
    static const double below[PF_THRESHOLDS] = {88, 32, 16, 8, 4, 2, 1, 0.5};
    range g = {.low = -INFINITY, .high = nextafterf((float)r->max, INFINITY)};
    float threshold[PF_THRESHOLDS];
    int64_t n = 0;
    if (bound > -INFINITY)
        add_threshold(&g, (double)bound, &n, threshold);
    for (int64_t j = 0; j < PF_THRESHOLDS && n < PF_THRESHOLDS; j++)
        add_threshold(&g, fmax(r->max - below[j] / r->scale, -FLT_MAX), &n, threshold);
    if (!narrow(r, goal, n, threshold, &g))
        return keep_all;
    bool evenly = false;
    for (int64_t left = g.count - g.count_above, before; left > FEW;) {
        n = choose(goal, &g, evenly, threshold);
        if (n == 0)
            return cut_equal(r, goal, &g);
        (void)narrow(r, goal, n, threshold, &g); /* false: it lies below them, and high fell */
        before = left;
        left = g.count - g.count_above;
        evenly = !evenly && left > before / PF_THRESHOLDS;
    }
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

/* A tile's mass in the row's unit. */
static double tile_mass(const row *r, int64_t tile)
{
    double mass = r->tile_scaled[tile];
    return mass == 0 ? 0 : mass * tile_factor(r, tile);
}

/* Takes what is not kept out of the tiles' masses; what is left. */
static double apply_cut(const row *r, const pf_cut *cut)
{
    float term[TILE];
    double total = 0;
    for (int64_t t = 0; t < r->d->n_tiles; t++) {
        if (cut->floor > -INFINITY)
            r->tile_scaled[t] = r->tile_max[t] >= cut->floor ? tile_terms(r, t, cut, term) : 0;
        total += tile_mass(r, t);
    }
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
        cut = find_cut(r, &(pf_goal){.count = t->top_k}, tile_bound(r, t->top_k));
    if (t->top_p < 1) {
        pf_cut by_mass =
            find_cut(r, &(pf_goal){.mass = t->top_p * MASS_SLACK * apply_cut(r, &cut)}, cut.floor);
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
        double mass = tile_mass(r, t);
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
    double total = apply_cut(&r, &cut), log_total = log(total);
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
