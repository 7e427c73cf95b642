/* KTO: values, gradients against central differences, corners, refusals. */
#include "base/pf_base.h"
#include "pf_test.h"

enum { N = 300 };
typedef struct {
    double logp[N], ref_logp[N], weight[N], each[N], grad[N];
    int32_t desirable[N];
    prefopt_kto_scores in;
    prefopt_kto_loss out;
    prefopt_kto_options o;
} cases;

static cases *cases_new(int64_t n)
{
    cases *c = calloc(1, sizeof *c);
    for (int64_t i = 0; i < n; i++) {
        c->logp[i] = -30 * pf_uniform(2, 1, (uint64_t)i);
        c->ref_logp[i] = c->logp[i] + 10 * (pf_uniform(2, 2, (uint64_t)i) - 0.5);
        c->weight[i] = i % 5 == 3 ? 0 : pf_uniform(2, 3, (uint64_t)i);
        c->desirable[i] = (int32_t)pf_uniform_int(2, 4, (uint64_t)i, 2);
    }
    c->in = (prefopt_kto_scores){sizeof c->in, 0, n, c->logp, c->ref_logp, c->desirable, c->weight};
    c->out = (prefopt_kto_loss){sizeof c->out, 0, 0, c->each, c->grad};
    OK(prefopt_kto_options_init(&c->o, sizeof c->o));
    return c;
}

static void other_options(cases *c)
{
    c->o.beta = 0.4;
    c->o.kl = 0.8;
    c->o.lambda_desirable = 1.5;
    c->o.lambda_undesirable = 0.7;
}

START_TEST(values)
{
    cases *c = cases_new(2);
    ck_assert(c->o.beta == 0.1 && c->o.kl == 0);
    ck_assert(c->o.lambda_desirable == 1 && c->o.lambda_undesirable == 1);
    c->desirable[0] = 1, c->desirable[1] = 0;
    c->logp[0] = -1, c->ref_logp[0] = -6; /* u = 5: 1 - sigma(0.5) */
    c->logp[1] = -6, c->ref_logp[1] = -6; /* u = 0: 1/2 */
    c->weight[0] = 3, c->weight[1] = 1;
    OK(prefopt_loss_kto(NULL, &c->in, &c->out));
    CLOSE(c->each[0], 0.37754066879814543536, 1e-15);
    CLOSE(c->each[1], 0.5, 1e-15);
    CLOSE(c->out.mean, (3 * 0.37754066879814543536 + 0.5) / 4, 1e-15);
    c->o.kl = 2; /* desirable: 1 - sigma(0.3); undesirable: 1 - sigma(0.2), times 2 */
    c->o.lambda_undesirable = 2;
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    CLOSE(c->each[0], 0.42555748318834101127, 1e-15);
    CLOSE(c->each[1], 2 * 0.45016600268752215587, 1e-15);
    free(c);

    c = cases_new(N);
    other_options(c);
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    long double sum = 0, weights = 0;
    for (int i = 0; i < N; i++) {
        long double z = c->o.beta * ((long double)c->logp[i] - c->ref_logp[i] - c->o.kl);
        long double loss = c->desirable[i] ? 1.5L * (1 - 1 / (1 + expl(-z)))
                                           : c->o.lambda_undesirable * (1 - 1 / (1 + expl(z)));
        CLOSE(c->each[i], (double)loss, 1e-14);
        sum += c->weight[i] * loss;
        weights += c->weight[i];
    }
    CLOSE(c->out.mean, (double)(sum / weights), 1e-14);
    free(c);
}
END_TEST

START_TEST(gradients)
{
    for (int kind = 0; kind < 4; kind++) {
        cases *c = cases_new(40);
        other_options(c);
        for (int i = 0; i < 40; i++)
            if (kind == 1)
                c->ref_logp[i] = c->logp[i];
            else if (kind == 2)
                c->logp[i] = c->ref_logp[i] + (i % 2 ? 700 : -700);
        if (kind == 3)
            c->in.weight = c->in.ref_logp = NULL;
        OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
        for (int i = 0; i < 40; i++) {
            prefopt_kto_loss out = {.struct_size = sizeof out};
            double kept = c->logp[i];
            c->logp[i] = kept + 1e-5;
            OK(prefopt_loss_kto(&c->o, &c->in, &out));
            double high = out.mean;
            c->logp[i] = kept - 1e-5;
            OK(prefopt_loss_kto(&c->o, &c->in, &out));
            c->logp[i] = kept;
            CLOSE(c->grad[i], (high - out.mean) / 2e-5, 1e-9);
            if (kind < 3 && c->weight[i] == 0)
                ck_assert(c->grad[i] == 0);
            if (kind == 1) /* at u = kl the slope would be beta lambda / 4; here z = -0.32 */
                ck_assert(c->weight[i] == 0 || (c->grad[i] < 0) == (c->desirable[i] == 1));
        }
        free(c);
    }
}
END_TEST

START_TEST(corners)
{
    cases *c = cases_new(0);
    c->in.logp = NULL, c->in.desirable = NULL;
    c->out.mean = 7;
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    ck_assert(c->out.mean == 0);
    free(c);
    c = cases_new(4);
    for (int i = 0; i < 4; i++)
        c->weight[i] = 1, c->desirable[i] = i < 2;
    c->logp[0] = c->logp[2] = -INFINITY;
    c->ref_logp[1] = c->ref_logp[3] = -INFINITY;
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    ck_assert(c->each[0] == 1 && c->each[1] == 0 && c->each[2] == 0 && c->each[3] == 1);
    for (int i = 0; i < 4; i++)
        ck_assert(c->grad[i] == 0);
    c->logp[3] = -INFINITY;
    c->out.mean = c->each[0] = 7;
    FAILS(PREFOPT_ERR_NUMERIC, "example 3", prefopt_loss_kto(&c->o, &c->in, &c->out));
    ck_assert(c->out.mean == 7 && c->each[0] == 7);
    c->weight[3] = 0;
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    CLOSE(c->out.mean, 1.0 / 3, 1e-15);
    ck_assert(c->grad[3] == 0);
    memset(c->weight, 0, sizeof c->weight);
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    ck_assert(c->out.mean == 0 && c->grad[0] == 0);
    free(c);
}
END_TEST

#define REFUSES(code, text)                                                                        \
    do {                                                                                           \
        c->out.mean = c->each[0] = c->grad[0] = 7;                                                 \
        FAILS(code, text, prefopt_loss_kto(&c->o, &c->in, &c->out));                               \
        ck_assert(c->out.mean == 7 && c->each[0] == 7 && c->grad[0] == 7);                         \
    } while (0)
#define REFUSES_VALUE(place, value, code, text)                                                    \
    do {                                                                                           \
        __typeof__(place) kept_ = (place);                                                         \
        (place) = (value);                                                                         \
        REFUSES(code, text);                                                                       \
        (place) = kept_;                                                                           \
    } while (0)

START_TEST(refusals)
{
    cases *c = cases_new(5);
    REFUSES_VALUE(c->o.beta, 0, PREFOPT_ERR_ARGUMENT, "beta is 0");
    REFUSES_VALUE(c->o.beta, NAN, PREFOPT_ERR_ARGUMENT, "beta is");
    REFUSES_VALUE(c->o.kl, -0.1, PREFOPT_ERR_ARGUMENT, "kl is -0.1");
    REFUSES_VALUE(c->o.lambda_desirable, INFINITY, PREFOPT_ERR_ARGUMENT, "lambda_desirable");
    REFUSES_VALUE(c->o.lambda_undesirable, -1, PREFOPT_ERR_ARGUMENT, "lambda_undesirable");
    REFUSES_VALUE(c->o.reserved, 1, PREFOPT_ERR_ARGUMENT, "reserved");
    REFUSES_VALUE(c->in.reserved, 1, PREFOPT_ERR_ARGUMENT, "reserved");
    REFUSES_VALUE(c->o.struct_size, 16, PREFOPT_ERR_VERSION, "prefopt_kto_options");
    REFUSES_VALUE(c->in.struct_size, 16, PREFOPT_ERR_VERSION, "prefopt_kto_scores");
    REFUSES_VALUE(c->out.struct_size, 16, PREFOPT_ERR_VERSION, "prefopt_kto_loss");
    REFUSES_VALUE(c->in.n, -1, PREFOPT_ERR_ARGUMENT, "n is -1");
    REFUSES_VALUE(c->in.logp, NULL, PREFOPT_ERR_ARGUMENT, "logp is NULL");
    REFUSES_VALUE(c->in.desirable, NULL, PREFOPT_ERR_ARGUMENT, "desirable is NULL");
    REFUSES_VALUE(c->desirable[4], 2, PREFOPT_ERR_ARGUMENT, "desirable[4] is 2");
    REFUSES_VALUE(c->logp[4], NAN, PREFOPT_ERR_NUMERIC, "logp[4]");
    REFUSES_VALUE(c->ref_logp[4], INFINITY, PREFOPT_ERR_NUMERIC, "ref_logp[4] is inf");
    REFUSES_VALUE(c->weight[4], -1, PREFOPT_ERR_ARGUMENT, "weight[4] is -1");
    FAILS(PREFOPT_ERR_ARGUMENT, "in is NULL", prefopt_loss_kto(&c->o, NULL, &c->out));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_loss_kto(&c->o, &c->in, NULL));
    FAILS(PREFOPT_ERR_ARGUMENT, "NULL", prefopt_kto_options_init(NULL, sizeof c->o));
    OK(prefopt_loss_kto(&c->o, &c->in, &c->out));
    free(c);
}
END_TEST

TEST_MAIN("kto", values, gradients, corners, refusals)
