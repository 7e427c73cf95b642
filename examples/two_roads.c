/* Real comparisons down both roads of the lecture (22.2): fit a reward model and take its
 * soft-optimal policy (RLHF), or fit the policy itself (DPO). With isomorphic classes both end at
 * one policy (22.4). */
#include <math.h>

#include "support/cli.h"
#include "support/roads.h"
#include "support/table.h"

static const char usage[] =
    "usage: two_roads [FILE.csv] [--beta B] [--reference NAME] [--ties none|davidson|rao-kupper]\n"
    "                 [--ridge L] [--json OUT] [--plot OUT.svg|OUT.png]\n"
    "FILE.csv  player1,player2,win1,win2[,tie] or winner,loser[,weight] or "
    "[count,]rank1,rank2,...\n"
    "          (default: American League baseball, 1987)\n"
    "--beta    weight of the KL to the uniform reference policy (default 0.1)\n"
    "--ties    none: half a win each (default); or a model of ties\n"
    "--ridge   maximise log-likelihood - L/2 * sum of squared strengths (default 0)\n";

/* The DPO road: the same likelihood on the policy's own reward, beta * log pi / pi_ref, over every
 * policy; and how far the comparisons cover what that policy does. */
static void dpo_road(prefopt_context *context, const table *t, const prefopt_dataset *data,
                     const prefopt_bt_options *bt, double ridge, roads *r)
{
    prefopt_space space = {
        .struct_size = sizeof space, .eos = -1, .vocab = t->n_items, .horizon = 1};
    prefopt_sequences empty = {.struct_size = sizeof empty,
                               .n = 1,
                               .offsets = (int64_t[]){0, 0},
                               .prompt_len = (int64_t[]){0}};
    prefopt_policy *policy;
    prefopt_reference *uniform;
    prefopt_reward *implicit;
    prefopt_trainer *trainer;
    prefopt_train_options train;
    CALL(prefopt_policy_create_tabular(&policy, context, &space, NULL));
    CALL(prefopt_reference_create_uniform(&uniform, context, &space));
    CALL(prefopt_reward_create_implicit(&implicit, policy, uniform, r->beta));
    CALL(prefopt_train_options_init(&train, sizeof train));
    train.score_ridge = ridge;
    /* Rounding of a log-probability moves the reward by beta times as much, and its gradient by
     * beta again. */
    train.tolerance = fmax(1e-12, 1e-15 * r->beta * r->beta);
    CALL(prefopt_trainer_create_reward(&trainer, implicit, data, bt, &train));
    CALL(prefopt_trainer_fit(trainer, NULL));
    CALL(prefopt_policy_next_logprobs(policy, &empty, r->log_dpo));
    r->coverage.struct_size = sizeof r->coverage;
    CALL(prefopt_report_coverage(&r->coverage, &r->uncovered, data, policy, uniform, NULL, 0));
    prefopt_trainer_destroy(trainer);
    prefopt_reward_destroy(implicit);
    prefopt_reference_destroy(uniform);
    prefopt_policy_destroy(policy);
}

typedef struct {
    const char *file, *reference, *json, *picture;
    double beta;
    prefopt_bt_options bt;
    prefopt_strengths_options strengths;
} settings;

static settings parse(int argc, char **argv)
{
    settings s = {.beta = 0.1};
    CALL(prefopt_bt_options_init(&s.bt, sizeof s.bt));
    CALL(prefopt_strengths_options_init(&s.strengths, sizeof s.strengths));
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            printf("%s", usage);
            exit(0);
        } else if (strcmp(argv[i], "--beta") == 0)
            s.beta = option_number(argc, argv, &i, 1e-6, 1e6);
        else if (strcmp(argv[i], "--ridge") == 0)
            s.strengths.ridge = option_number(argc, argv, &i, 0, 1e12);
        else if (strcmp(argv[i], "--reference") == 0)
            s.reference = option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--json") == 0)
            s.json = option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--plot") == 0)
            s.picture = option_value(argc, argv, &i);
        else if (strcmp(argv[i], "--ties") == 0)
            s.strengths.tie_model = s.bt.tie_model = tie_model_named(option_value(argc, argv, &i));
        else if (argv[i][0] == '-' || s.file != NULL) {
            fprintf(stderr, "unexpected \"%s\"\n%s", argv[i], usage);
            exit(2);
        } else
            s.file = argv[i];
    }
    return s;
}

int main(int argc, char **argv)
{
    settings s = parse(argc, argv);
    table t;
    char error[512];
    if (table_read(&t, s.file == NULL ? "baseball 1987" : s.file,
                   s.file == NULL ? table_baseball_1987 : NULL, error, sizeof error) < 0) {
        fprintf(stderr, "%s\n", error);
        return 1;
    }
    s.strengths.reference = item_named(&t, s.reference);
    s.strengths.item_names = (const char *const *)t.names;

    prefopt_context *context;
    CALL(prefopt_context_create(&context, NULL));
    prefopt_comparisons comparisons = {.struct_size = sizeof comparisons,
                                       .n_items = t.n_items,
                                       .n = t.n,
                                       .first = t.first,
                                       .second = t.second,
                                       .weight = t.weight,
                                       .label = t.label};
    prefopt_rankings rankings = {.struct_size = sizeof rankings,
                                 .n_items = t.n_items,
                                 .n = t.n,
                                 .offsets = t.offsets,
                                 .items = t.items,
                                 .weight = t.weight};
    roads r = {.beta = s.beta, .t = &t};
    roads_allocate(&r);

    /* Road one: the reward model, then its soft-optimal policy, softmax(log pi_ref + r / beta). */
    prefopt_strengths *fit;
    CALL(prefopt_strengths_fit(&fit, context, t.is_ranking ? NULL : &comparisons,
                               t.is_ranking ? &rankings : NULL, &s.strengths));
    CALL(prefopt_strengths_values(fit, r.strength, r.std_error));
    r.summary.struct_size = sizeof r.summary;
    CALL(prefopt_strengths_summarise(fit, &r.summary));
    r.fragility.struct_size = sizeof r.fragility;
    if (!t.is_ranking)
        CALL(
            prefopt_report_fragility(&r.fragility, NULL, context, &comparisons, &s.strengths, 0.2));
    for (int64_t i = 0; i < t.n_items; i++)
        r.log_ref[i] = -log((double)t.n_items);
    CALL(prefopt_soft_optimal(t.n_items, r.log_ref, r.strength, s.beta, r.log_rlhf, NULL));

    /* Road two: the policy from the comparisons themselves. */
    prefopt_dataset *data = table_dataset(context, &t);
    dpo_road(context, &t, data, &s.bt, s.strengths.ridge, &r);

    roads_print(&r);
    if (s.json != NULL)
        roads_write_json(&r, s.json);
    if (s.picture != NULL)
        roads_draw(&r, s.file == NULL ? "American League baseball, 1987" : s.file, s.picture);
    roads_free(&r);
    prefopt_dataset_destroy(data);
    prefopt_strengths_destroy(fit);
    prefopt_context_destroy(context);
    table_free(&t);
    return 0;
}
