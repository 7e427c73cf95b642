/* AdamW (Loshchilov and Hutter, arXiv 1711.05101) and SGD with momentum, both with decoupled weight
 * decay, on parameters of either type.
 *
 * Arrays are cut into chunks of a fixed length, whatever the threads, and sums are over the chunks'
 * sums in order. A step is computed twice: first without writing, to see whether every parameter
 * stays finite, so that a bad step leaves parameters and moments as they were. */
#include <math.h>

#include "train/pf_train.h"

enum { CHUNK = 16384 };

typedef struct {
    double rate, scale, decay; /* decay: what a parameter is multiplied with first */
    double beta1, beta2, epsilon, momentum;
    double correct1, correct2; /* 1 - beta^t */
} step_constants;

typedef struct {
    pf_optimiser *optimiser;
    step_constants constants;
    double strength; /* of the ridge */
    bool write;
} work;

int32_t pf_optimiser_init(pf_optimiser *optimiser, prefopt_context *context,
                          const prefopt_train_options *options)
{
    memset(optimiser, 0, sizeof *optimiser);
    optimiser->context = context;
    optimiser->options = *options;
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
    double *partial = pf_alloc(context, n_chunks, sizeof *partial);
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
    optimiser->n_chunks = n_chunks;
    optimiser->n_slots++;
    return PREFOPT_OK;
}

void pf_optimiser_clear(pf_optimiser *optimiser)
{
    for (int32_t i = 0; i < optimiser->n_slots; i++) {
        pf_free(optimiser->context, optimiser->slots[i].first);
        pf_free(optimiser->context, optimiser->slots[i].second);
    }
    pf_free(optimiser->context, optimiser->partial);
    optimiser->partial = NULL;
    optimiser->n_slots = 0;
}

/* The kernels of one chunk, for one type. Arithmetic is in double throughout.
 * square: sum of the gradients' squares. ridge: see pf_optimiser_ridge.
 * adamw, sgd: number of parameters that the step would make infinite or NaN. */
#define DEFINE_KERNELS(type, suffix)                                                               \
    static double square_##suffix(const pf_slot *slot, int64_t low, int64_t high)                  \
    {                                                                                              \
        const type *grad = slot->grad;                                                             \
        double sum = 0;                                                                            \
        for (int64_t i = low; i < high; i++)                                                       \
            sum += (double)grad[i] * (double)grad[i];                                              \
        return sum;                                                                                \
    }                                                                                              \
                                                                                                   \
    static double ridge_##suffix(const pf_slot *slot, int64_t low, int64_t high, double strength,  \
                                 bool add)                                                         \
    {                                                                                              \
        const type *value = slot->value;                                                           \
        type *grad = slot->grad;                                                                   \
        double sum = 0;                                                                            \
        for (int64_t i = low; i < high; i++) {                                                     \
            if (!isfinite(value[i]))                                                               \
                continue;                                                                          \
            if (add)                                                                               \
                grad[i] = (type)((double)grad[i] + strength * (double)value[i]);                   \
            sum += (double)value[i] * (double)value[i];                                            \
        }                                                                                          \
        return sum;                                                                                \
    }                                                                                              \
                                                                                                   \
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
    optimiser->partial[task] =
        slot->dtype == PREFOPT_F32 ? square_f32(slot, low, high) : square_f64(slot, low, high);
}

double pf_optimiser_grad_norm(pf_optimiser *optimiser)
{
    pf_parallel_for(optimiser->context, optimiser->n_chunks, norm_task, optimiser);
    return sqrt(sum_of_partials(optimiser, optimiser->n_chunks));
}

static void ridge_task(void *payload, int64_t task)
{
    work *w = payload;
    int64_t low, high;
    const pf_slot *slot = chunk_of(w->optimiser, task, &low, &high);
    w->optimiser->partial[task] = slot->dtype == PREFOPT_F32
                                      ? ridge_f32(slot, low, high, w->strength, w->write)
                                      : ridge_f64(slot, low, high, w->strength, w->write);
}

double pf_optimiser_ridge(pf_optimiser *optimiser, double strength, bool add)
{
    work w = {.optimiser = optimiser, .strength = strength, .write = add};
    int64_t n = chunks_of(optimiser->slots[0].n);
    pf_parallel_for(optimiser->context, n, ridge_task, &w);
    return 0.5 * strength * sum_of_partials(optimiser, n);
}

static void step_task(void *payload, int64_t task)
{
    work *w = payload;
    int64_t low, high, bad;
    const pf_slot *slot = chunk_of(w->optimiser, task, &low, &high);
    const step_constants *c = &w->constants;
    if (w->optimiser->options.optimiser == PREFOPT_ADAMW)
        bad = slot->dtype == PREFOPT_F32 ? adamw_f32(slot, low, high, c, w->write)
                                         : adamw_f64(slot, low, high, c, w->write);
    else
        bad = slot->dtype == PREFOPT_F32 ? sgd_f32(slot, low, high, c, w->write)
                                         : sgd_f64(slot, low, high, c, w->write);
    w->optimiser->partial[task] = (double)bad;
}

bool pf_optimiser_step(pf_optimiser *optimiser, double rate, double scale)
{
    const prefopt_train_options *o = &optimiser->options;
    double t = (double)(optimiser->steps + 1);
    work w = {.optimiser = optimiser,
              .constants = {.rate = rate,
                            .scale = scale,
                            .decay = 1 - rate * o->weight_decay,
                            .beta1 = o->beta1,
                            .beta2 = o->beta2,
                            .epsilon = o->epsilon,
                            .momentum = o->momentum,
                            .correct1 = 1 - pow(o->beta1, t),
                            .correct2 = 1 - pow(o->beta2, t)}};
    pf_parallel_for(optimiser->context, optimiser->n_chunks, step_task, &w);
    if (sum_of_partials(optimiser, optimiser->n_chunks) != 0)
        return false;
    w.write = true;
    pf_parallel_for(optimiser->context, optimiser->n_chunks, step_task, &w);
    optimiser->steps++;
    return true;
}
