/* AdamW (Loshchilov and Hutter, arXiv 1711.05101) and SGD with momentum, both with decoupled weight
 * decay, on parameters of either type.
 *
 * Arrays are cut into chunks of a fixed length, whatever the threads, and sums are over the chunks'
 * sums in order.
 *
 * A step that would make a parameter infinite or NaN changes nothing. The pass that finds the
 * gradient's norm also finds the largest parameter; together they bound what the step can write,
 * and mostly prove that it fits: then one pass takes the step, for float32 parameters in float32.
 * Where the bound proves nothing, or a float does not hold the step's constants well, arithmetic is
 * in double, and the step is computed twice: first without writing, to see what it would give. */
#include <math.h>

#include "math/pf_steps.h"
#include "train/pf_train.h"

enum { CHUNK = 16384 };

typedef struct {
    double rate, scale, decay; /* decay: what a parameter is multiplied with first */
    double beta1, beta2, epsilon, momentum;
    double correct1, correct2; /* 1 - beta^t */
} step_constants;

typedef struct {
    step_constants wide;
    pf_adamw_constants adamw;
    pf_sgd_constants sgd;
} step_rule;

typedef struct {
    pf_optimiser *optimiser;
    step_rule decays, spares; /* with and without weight decay */
    double strength;          /* of the ridge */
    bool write;
    bool proven; /* float32 slots go in float32 */
} work;

int32_t pf_optimiser_init(pf_optimiser *optimiser, prefopt_context *context,
                          const prefopt_train_options *options)
{
    memset(optimiser, 0, sizeof *optimiser);
    optimiser->context = context;
    optimiser->options = *options;
    optimiser->grad_norm = NAN;
    return PREFOPT_OK;
}

static int64_t chunks_of(int64_t n) { return (n + CHUNK - 1) / CHUNK; }

int32_t pf_optimiser_add(pf_optimiser *optimiser, const prefopt_parameters *parameters)
{
    prefopt_context *context = optimiser->context;
    pf_slot *slot = &optimiser->slots[optimiser->n_slots];
    memset(slot, 0, sizeof *slot);
    slot->dtype = parameters->dtype;
    slot->n = parameters->n;
    slot->value = parameters->value;
    slot->grad = parameters->grad;
    size_t size = slot->dtype == PREFOPT_F32 ? sizeof(float) : sizeof(double);
    bool adam = optimiser->options.optimiser == PREFOPT_ADAMW;
    int64_t n_chunks = optimiser->n_chunks + chunks_of(slot->n);
    double *partial = pf_alloc(context, 2 * n_chunks, sizeof *partial);
    if (partial == NULL)
        return PREFOPT_ERR_MEMORY;
    if (adam || optimiser->options.momentum > 0)
        slot->first = pf_calloc(context, slot->n, size);
    if (adam)
        slot->second = pf_calloc(context, slot->n, size);
    if ((adam && slot->second == NULL) ||
        ((adam || optimiser->options.momentum > 0) && slot->first == NULL)) {
        pf_free(context, slot->first);
        pf_free(context, slot->second);
        pf_free(context, partial);
        return PREFOPT_ERR_MEMORY;
    }
    pf_free(context, optimiser->partial);
    optimiser->partial = partial;
    optimiser->largest = partial + n_chunks;
    optimiser->n_chunks = n_chunks;
    optimiser->n_slots++;
    return PREFOPT_OK;
}

int32_t pf_optimiser_spare_vectors(pf_optimiser *optimiser, const pf_trained *model)
{
    pf_slot *slot = &optimiser->slots[0];
    int64_t n = 0, offset, length;
    while (pf_trained_vector(model, n, &offset, &length))
        n++;
    slot->whole = pf_alloc(optimiser->context, n, sizeof *slot->whole);
    if (slot->whole == NULL)
        return PREFOPT_ERR_MEMORY;
    for (int64_t k = 0; k < n; k++) {
        (void)pf_trained_vector(model, k, &offset, &length);
        pf_span *last = slot->n_whole > 0 ? &slot->whole[slot->n_whole - 1] : NULL;
        if (last != NULL && last->high == offset)
            last->high += length;
        else
            slot->whole[slot->n_whole++] = (pf_span){.low = offset, .high = offset + length};
    }
    return PREFOPT_OK;
}

void pf_optimiser_clear(pf_optimiser *optimiser)
{
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        pf_free(optimiser->context, optimiser->slots[i].whole);
        pf_free(optimiser->context, optimiser->slots[i].first);
        pf_free(optimiser->context, optimiser->slots[i].second);
    }
    pf_free(optimiser->context, optimiser->partial);
    optimiser->partial = optimiser->largest = NULL;
    optimiser->n_slots = 0;
}

static double square_f64(const pf_slot *slot, int64_t low, int64_t high, double *largest)
{
    const double *grad = slot->grad, *value = slot->value;
    double sum = 0, most = 0;
    for (int64_t i = low; i < high; i++) {
        double magnitude = fabs(value[i]);
        sum += grad[i] * grad[i];
        if (magnitude < INFINITY && magnitude > most)
            most = magnitude;
    }
    *largest = most;
    return sum;
}

static double ridge_f64(const pf_slot *slot, int64_t low, int64_t high, double strength, bool add)
{
    const double *value = slot->value;
    double *grad = slot->grad, sum = 0;
    for (int64_t i = low; i < high; i++) {
        if (!isfinite(value[i]))
            continue;
        if (add)
            grad[i] += strength * value[i];
        sum += value[i] * value[i];
    }
    return sum;
}

/* The step on one chunk in double arithmetic, for one type: the number of parameters that it would
 * make infinite or NaN. */
#define DEFINE_KERNELS(type, suffix)                                                               \
    static int64_t adamw_##suffix(const pf_slot *slot, int64_t low, int64_t high,                  \
                                  const step_constants *c, bool write)                             \
    {                                                                                              \
        type *value = slot->value, *first = slot->first, *second = slot->second;                   \
        const type *grad = slot->grad;                                                             \
        int64_t bad = 0;                                                                           \
        for (int64_t i = low; i < high; i++) {                                                     \
            if (!isfinite(value[i]))                                                               \
                continue;                                                                          \
            double g = c->scale * (double)grad[i];                                                 \
            double m = c->beta1 * (double)first[i] + (1 - c->beta1) * g;                           \
            double v = c->beta2 * (double)second[i] + (1 - c->beta2) * g * g;                      \
            double step = m / c->correct1 / (sqrt(v / c->correct2) + c->epsilon);                  \
            type next = (type)(c->decay * (double)value[i] - c->rate * step);                      \
            bad += !isfinite(next) || !isfinite((type)m) || !isfinite((type)v);                    \
            if (write) {                                                                           \
                first[i] = (type)m;                                                                \
                second[i] = (type)v;                                                               \
                value[i] = next;                                                                   \
            }                                                                                      \
        }                                                                                          \
        return bad;                                                                                \
    }                                                                                              \
                                                                                                   \
    static int64_t sgd_##suffix(const pf_slot *slot, int64_t low, int64_t high,                    \
                                const step_constants *c, bool write)                               \
    {                                                                                              \
        type *value = slot->value, *first = slot->first;                                           \
        const type *grad = slot->grad;                                                             \
        int64_t bad = 0;                                                                           \
        for (int64_t i = low; i < high; i++) {                                                     \
            if (!isfinite(value[i]))                                                               \
                continue;                                                                          \
            double step = c->scale * (double)grad[i];                                              \
            if (first != NULL)                                                                     \
                step += c->momentum * (double)first[i];                                            \
            type next = (type)(c->decay * (double)value[i] - c->rate * step);                      \
            bad += !isfinite(next) || !isfinite((type)step);                                       \
            if (write) {                                                                           \
                if (first != NULL)                                                                 \
                    first[i] = (type)step;                                                         \
                value[i] = next;                                                                   \
            }                                                                                      \
        }                                                                                          \
        return bad;                                                                                \
    }

DEFINE_KERNELS(double, f64)
DEFINE_KERNELS(float, f32)

/* The slot that chunk `task` belongs to, and its elements. */
static const pf_slot *chunk_of(const pf_optimiser *optimiser, int64_t task, int64_t *low,
                               int64_t *high)
{
    const pf_slot *slot = optimiser->slots;
    while (task >= chunks_of(slot->n)) {
        task -= chunks_of(slot->n);
        slot++;
    }
    *low = task * CHUNK;
    *high = *low + CHUNK < slot->n ? *low + CHUNK : slot->n;
    return slot;
}

static double sum_of_partials(const pf_optimiser *optimiser, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += optimiser->partial[i];
    return sum;
}

static void norm_task(void *payload, int64_t task)
{
    pf_optimiser *optimiser = payload;
    int64_t low, high;
    const pf_slot *slot = chunk_of(optimiser, task, &low, &high);
    if (slot->dtype == PREFOPT_F64) {
        optimiser->partial[task] = square_f64(slot, low, high, &optimiser->largest[task]);
        return;
    }
    const float *grad = slot->grad, *value = slot->value;
    float largest;
    optimiser->partial[task] = pf_grad_square_f32(high - low, grad + low, value + low, &largest);
    optimiser->largest[task] = (double)largest;
}

double pf_optimiser_grad_norm(pf_optimiser *optimiser)
{
    pf_parallel_for(optimiser->context, optimiser->n_chunks, norm_task, optimiser);
    optimiser->grad_norm = sqrt(sum_of_partials(optimiser, optimiser->n_chunks));
    optimiser->largest_value = 0;
    for (int64_t i = 0; i < optimiser->n_chunks; i++)
        if (optimiser->largest[i] > optimiser->largest_value)
            optimiser->largest_value = optimiser->largest[i];
    return optimiser->grad_norm;
}

static void ridge_task(void *payload, int64_t task)
{
    work *w = payload;
    int64_t low, high;
    const pf_slot *slot = chunk_of(w->optimiser, task, &low, &high);
    if (slot->dtype == PREFOPT_F64) {
        w->optimiser->partial[task] = ridge_f64(slot, low, high, w->strength, w->write);
        return;
    }
    const float *value = slot->value;
    w->optimiser->partial[task] =
        pf_ridge_f32(high - low, w->strength, w->write, value + low, (float *)slot->grad + low);
}

double pf_optimiser_ridge(pf_optimiser *optimiser, double strength, bool add)
{
    work w = {.optimiser = optimiser, .strength = strength, .write = add};
    int64_t n = chunks_of(optimiser->slots[0].n);
    pf_parallel_for(optimiser->context, n, ridge_task, &w);
    return 0.5 * strength * sum_of_partials(optimiser, n);
}

static void step_in_float(const work *w, const step_rule *rule, const pf_slot *slot, int64_t low,
                          int64_t n)
{
    float *value = (float *)slot->value + low, *grad = (float *)slot->grad + low;
    float *first = slot->first != NULL ? (float *)slot->first + low : NULL;
    if (w->optimiser->options.optimiser == PREFOPT_ADAMW)
        pf_adamw_f32(n, &rule->adamw, value, grad, first, (float *)slot->second + low);
    else
        pf_sgd_f32(n, &rule->sgd, value, grad, first);
}

static int64_t step_part(const work *w, const step_rule *rule, const pf_slot *slot, int64_t low,
                         int64_t high)
{
    const step_constants *c = &rule->wide;
    bool narrow = slot->dtype == PREFOPT_F32;
    if (narrow && w->proven) {
        step_in_float(w, rule, slot, low, high - low);
        return 0;
    }
    if (w->optimiser->options.optimiser == PREFOPT_ADAMW)
        return narrow ? adamw_f32(slot, low, high, c, w->write)
                      : adamw_f64(slot, low, high, c, w->write);
    return narrow ? sgd_f32(slot, low, high, c, w->write) : sgd_f64(slot, low, high, c, w->write);
}

/* Whether element `at` is spared from decay; *end (in: a bound): where that changes. */
static bool spared(const pf_slot *slot, int64_t at, int64_t *end)
{
    int64_t a = 0, b = slot->n_whole; /* the first span that ends after `at` */
    while (a < b) {
        int64_t middle = a + (b - a) / 2;
        if (slot->whole[middle].high <= at)
            a = middle + 1;
        else
            b = middle;
    }
    if (a == slot->n_whole)
        return false;
    bool inside = slot->whole[a].low <= at;
    int64_t change = inside ? slot->whole[a].high : slot->whole[a].low;
    *end = change < *end ? change : *end;
    return inside;
}

static void step_task(void *payload, int64_t task)
{
    work *w = payload;
    int64_t low, high, bad = 0;
    const pf_slot *slot = chunk_of(w->optimiser, task, &low, &high);
    for (int64_t end; low < high; low = end) {
        end = high;
        const step_rule *rule = spared(slot, low, &end) ? &w->spares : &w->decays;
        bad += step_part(w, rule, slot, low, end);
    }
    w->optimiser->partial[task] = (double)bad;
}

/* Whether no number that the step computes can be above `limit` in magnitude, by the bounds of
 * gradients (times scale), moments and values. NaN proves nothing. */
static bool bound_proves(const pf_optimiser *optimiser, const step_constants *c, double limit)
{
    double grad = c->scale * optimiser->grad_norm;
    double value = optimiser->largest_value * (1 + c->rate * optimiser->options.weight_decay);
    if (optimiser->options.optimiser == PREFOPT_SGD) {
        double moment = c->momentum * optimiser->moment_bound + grad;
        return moment <= limit && value + c->rate * moment <= limit;
    }
    /* The first moment is a mean of gradients, the second of their squares. */
    double moment = optimiser->moment_bound > grad ? optimiser->moment_bound : grad;
    double step = c->rate / c->correct1 * moment;
    return moment * moment <= limit && moment / sqrt(c->correct2) <= limit && step <= limit &&
           value + step / c->epsilon <= limit;
}

/* Whether floats hold the constants to full precision, with room for their products. */
static bool floats_hold(const step_constants *c, double weight_decay, bool adam)
{
    bool common = (c->rate == 0 || (c->rate >= 1e-20 && c->rate <= 1e20)) && c->scale >= 1e-20 &&
                  c->scale <= 1 && c->rate * weight_decay <= 1e20;
    return common && (!adam || (c->epsilon >= 1e-12 && c->epsilon <= 1e20 && c->correct1 >= 1e-12 &&
                                c->correct2 >= 1e-12));
}

static bool is_proven(const pf_optimiser *optimiser, const step_constants *c)
{
    /* Well below the largest numbers of the types, so that rounding does not matter. */
    static const double f64_limit = 1e300, f32_limit = 1e37;
    bool adam = optimiser->options.optimiser == PREFOPT_ADAMW;
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        bool narrow = optimiser->slots[i].dtype == PREFOPT_F32;
        if (!bound_proves(optimiser, c, narrow ? f32_limit : f64_limit) ||
            (narrow && !floats_hold(c, optimiser->options.weight_decay, adam)))
            return false;
    }
    return true;
}

static void narrow(step_rule *rule, double weight_decay)
{
    const step_constants *c = &rule->wide;
    float scale = (float)c->scale, shrink = (float)(c->rate * weight_decay);
    rule->sgd = (pf_sgd_constants){
        .scale = scale, .momentum = (float)c->momentum, .rate = (float)c->rate, .shrink = shrink};
    rule->adamw = (pf_adamw_constants){.scale = scale,
                                       .beta1 = (float)c->beta1,
                                       .beta1_rest = (float)(c->beta1 - (double)(float)c->beta1),
                                       .keep1 = (float)(1 - c->beta1),
                                       .beta2 = (float)c->beta2,
                                       .beta2_rest = (float)(c->beta2 - (double)(float)c->beta2),
                                       .keep2 = (float)(1 - c->beta2),
                                       .rate = (float)(c->rate / c->correct1),
                                       .root = (float)(1 / sqrt(c->correct2)),
                                       .epsilon = (float)c->epsilon,
                                       .shrink = shrink};
}

/* What moments can be after the step; the norm is known once. */
static void update_bounds(pf_optimiser *optimiser, const step_constants *c)
{
    double grad = c->scale * optimiser->grad_norm, moment = optimiser->moment_bound;
    if (isnan(grad))
        grad = INFINITY;
    if (optimiser->options.optimiser == PREFOPT_SGD)
        moment = c->momentum > 0 ? c->momentum * moment + grad : 0;
    else if (grad > moment)
        moment = grad;
    optimiser->moment_bound = moment;
}

bool pf_optimiser_step(pf_optimiser *optimiser, double rate, double scale)
{
    const prefopt_train_options *o = &optimiser->options;
    double t = (double)(optimiser->steps + 1);
    work w = {.optimiser = optimiser,
              .decays.wide = {.rate = rate,
                              .scale = scale,
                              .decay = 1 - rate * o->weight_decay,
                              .beta1 = o->beta1,
                              .beta2 = o->beta2,
                              .epsilon = o->epsilon,
                              .momentum = o->momentum,
                              .correct1 = 1 - pow(o->beta1, t),
                              .correct2 = 1 - pow(o->beta2, t)}};
    w.spares = w.decays;
    w.spares.wide.decay = 1;
    w.proven = is_proven(optimiser, &w.decays.wide);
    if (w.proven) {
        narrow(&w.decays, o->weight_decay);
        narrow(&w.spares, 0);
    } else {
        pf_parallel_for(optimiser->context, optimiser->n_chunks, step_task, &w);
        if (sum_of_partials(optimiser, optimiser->n_chunks) != 0)
            return false;
    }
    w.write = true;
    pf_parallel_for(optimiser->context, optimiser->n_chunks, step_task, &w);
    update_bounds(optimiser, &w.decays.wide);
    optimiser->grad_norm = NAN;
    optimiser->steps++;
    return true;
}
