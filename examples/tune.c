/* Preferences into language models, from text pairs to a tuned checkpoint, by the public API alone.
 *
 *     tune init|sft|reward|dpo|online|pg|eval|compare ...        tune --help
 *
 * Here is what each command makes of its options: models, data, trainer. The table of options is in
 * support/tune_table.c, the run of a trainer in support/tune_run.c, eval and compare in
 * support/tune_judge.c. */
#include <math.h>

#include "support/cli.h"
#include "support/run_folder.h"
#include "support/tune_data.h"
#include "support/tune_judge.h"
#include "support/tune_ranks.h"
#include "support/tune_run.h"

/* ---- init */

/* Whether an even number of a head's dimensions turns, and some do. */
static int turns(const prefopt_transformer_config *c)
{
    int64_t n = (int64_t)floor((double)(c->width / c->n_heads) * c->rotary_fraction);
    return n > 0 && n % 2 == 0;
}

/* 0, or the exit code where the options do not fit the tokenizer. */
static int fill_config(prefopt_transformer_config *config, const tune_options *o,
                       const prefopt_tokenizer *tokenizer)
{
    CALL(prefopt_transformer_config_init(config, sizeof *config));
    int64_t tokens = prefopt_tokenizer_size(tokenizer);
    config->vocab = o->vocab > 0 ? (int64_t)o->vocab : tokens;
    if (tokens > config->vocab) {
        fprintf(stderr, "--vocab is %lld, %s has %lld tokens\n", (long long)config->vocab,
                o->tokenizer, (long long)tokens);
        return 2;
    }
    config->eos = language_end(tokenizer);
    if (o->eos != NULL)
        CALL(prefopt_tokenizer_token(tokenizer, o->eos, (int64_t)strlen(o->eos), &config->eos));
    if (config->eos < 0) {
        fprintf(stderr,
                o->eos != NULL ? "%s has no token %s\n"
                               : "%s has no token that ends a text by a usual name: name it with "
                                 "--eos\n",
                o->tokenizer, o->eos);
        return 1;
    }
    config->n_layers = (int64_t)o->layers;
    config->width = (int64_t)o->width;
    config->n_heads = (int64_t)o->heads;
    config->ff_width = o->ff_width > 0 ? (int64_t)o->ff_width : 4 * config->width;
    config->max_positions = (int64_t)o->positions;
    config->tied = o->tied != 0;
    config->init_scale = o->init_scale;
    while (config->rotary_fraction < 1 && !turns(config)) /* small heads turn a larger part */
        config->rotary_fraction *= 2;
    return 0;
}

static void make_model(const tune_options *o, prefopt_context *context,
                       const prefopt_transformer_config *config)
{
    prefopt_policy *policy;
    prefopt_parameters parameters = {.struct_size = sizeof parameters};
    CALL(prefopt_policy_create_transformer(&policy, context, config, (uint64_t)o->seed));
    const char *none[] = {NULL};
    run_folder_begin(o->out, none);
    json_t *echo = run_folder_echo(
        o, kept_json(json_pack("{s:O}", "tokenizer", run_folder_file(o->tokenizer))));
    if (run_folder_check(o->out, o, echo))
        printf("%s is made already: this makes the same again\n", o->out);
    run_folder_write(o->out, "config_echo.json", echo);
    CALL(prefopt_policy_parameters(policy, &parameters));
    language_copy(o->tokenizer, language_path(o->out, "tokenizer.json"));
    CALL(prefopt_policy_save(policy, o->out));
    printf("%s: %lld layers, width %lld, %lld heads, %lld tokens: %.2f million parameters\n"
           "The weights are random: its text is noise until tune sft has trained it.\n",
           o->out, (long long)config->n_layers, (long long)config->width,
           (long long)config->n_heads, (long long)config->vocab, 1e-6 * (double)parameters.n);
    prefopt_policy_destroy(policy);
}

static int init(const tune_options *o)
{
    prefopt_context *context;
    prefopt_tokenizer *tokenizer;
    prefopt_transformer_config config;
    CALL(prefopt_context_create(&context, NULL));
    CALL(prefopt_tokenizer_load(&tokenizer, context, o->tokenizer));
    int code = fill_config(&config, o, tokenizer);
    if (code == 0)
        make_model(o, context, &config);
    prefopt_tokenizer_destroy(tokenizer);
    prefopt_context_destroy(context);
    return code;
}

/* ---- the trainers */

static void fill_train(prefopt_train_options *t, tune_run *r)
{
    const tune_options *o = r->o;
    CALL(prefopt_train_options_init(t, sizeof *t));
    t->learning_rate = o->lr;
    t->warmup_steps = (int64_t)o->warmup;
    t->schedule = (int32_t)o->schedule;
    if (t->schedule != PREFOPT_CONSTANT)
        t->schedule_steps = (int64_t)fmax(1, o->steps - o->warmup);
    t->final_fraction = o->final_fraction;
    t->clip_norm = o->clip;
    t->weight_decay = o->weight_decay;
    t->decay_vectors = o->decay_vectors != 0;
    t->micro_batch = (int64_t)o->micro_batch;
    t->batch = (int64_t)fmin(o->batch, (double)prefopt_dataset_size(r->data));
    if (o->round_prompts > 0 && o->round_steps == 1) /* a step is on all that a round draws */
        t->batch = 0;
    t->seed = (uint64_t)o->seed;
    t->progress = tune_run_progress;
    t->progress_payload = r;
    t->collective = tune_ranks_collective();
}

static void fill_dpo(prefopt_dpo_options *d, const tune_options *o)
{
    CALL(prefopt_dpo_options_init(d, sizeof *d));
    d->variant = (int32_t)o->variant;
    d->beta = o->beta;
    d->label_smoothing = o->label_smoothing;
    d->gamma = o->gamma;
    d->delta = o->delta;
    d->tau = o->tau;
    d->lambda = o->lambda;
    d->divergence = (int32_t)o->divergence;
}

static int without_reference(const tune_options *o)
{
    return o->variant == PREFOPT_DPO_SIMPO || o->variant == PREFOPT_DPO_CPO ||
           o->variant == PREFOPT_DPO_ORPO;
}

/* The loss of no pairs says what is wrong with its options, before anything is written. */
static void check_dpo(const tune_options *o)
{
    static const double number;
    static const int64_t length;
    prefopt_dpo_options dpo;
    prefopt_pair_loss out = {.struct_size = sizeof out};
    prefopt_pair_scores in = {.struct_size = sizeof in, .chosen = &number, .rejected = &number};
    if ((o->command & (TUNE_DPO | TUNE_ONLINE)) == 0)
        return;
    fill_dpo(&dpo, o);
    if (!without_reference(o))
        in.ref_chosen = in.ref_rejected = &number;
    if (dpo.variant == PREFOPT_DPO_IPO || dpo.variant == PREFOPT_DPO_SIGMOID_NORM ||
        dpo.variant == PREFOPT_DPO_SIMPO || dpo.variant == PREFOPT_DPO_ORPO)
        in.len_chosen = in.len_rejected = &length;
    CALL(prefopt_loss_dpo(&dpo, &in, &out));
}

/* What the first step shows where the policy is the reference still. */
static void expect_dpo(tune_run *r)
{
    const tune_options *o = r->o;
    r->first_margin = !without_reference(o) && o->start == NULL;
    if (r->first_margin &&
        (o->variant == PREFOPT_DPO_SIGMOID || o->variant == PREFOPT_DPO_SIGMOID_NORM))
        r->first_loss = log(2);
}

/* What is held out is looked at as the trainer learns. */
static void set_evaluation(tune_run *r)
{
    const tune_options *o = r->o;
    prefopt_evaluation_options options;
    if (r->held_out == NULL)
        return;
    CALL(prefopt_evaluation_options_init(&options, sizeof options));
    options.keep_best = o->final == 0;
    options.every = (int64_t)(o->eval_every > 0 ? o->eval_every : ceil(o->steps / 10));
    options.patience = (int64_t)o->patience;
    options.min_delta = o->min_delta;
    CALL(prefopt_trainer_set_evaluation(r->trainer, r->held_out, r->held_out_reference, &options));
}

static void make_sft(tune_run *r, const prefopt_train_options *train)
{
    r->mean_length = tune_data_length(r->data, &r->prompt_length);
    if (r->held_out != NULL)
        r->held_out_length = tune_data_length(r->held_out, &(int64_t){0});
    CALL(prefopt_trainer_create_mle(&r->trainer, r->model.policy, r->data, train));
    set_evaluation(r);
}

static void make_reward(tune_run *r, const prefopt_train_options *train)
{
    prefopt_bt_options bt;
    CALL(prefopt_bt_options_init(&bt, sizeof bt));
    bt.tie_model = (int32_t)r->o->tie_model;
    bt.centre = r->o->centre;
    if (r->model.reward == NULL) { /* a head on the language model, which scores 0 at first */
        CALL(prefopt_reward_from_policy(&r->model.reward, r->model.policy));
        prefopt_policy_destroy(r->model.policy);
        r->model.policy = NULL;
        r->first_margin = 1;
        if (bt.tie_model == PREFOPT_TIE_NONE)
            r->first_loss = log(2);
    }
    CALL(prefopt_trainer_create_reward(&r->trainer, r->model.reward, r->data, &bt, train));
    set_evaluation(r);
}

/* From here on the policy is another one than --model. */
static void take_start(tune_run *r)
{
    if (r->o->start == NULL)
        return;
    tune_judge_same_tokenizer(r->o->model, r->o->start);
    language_close(&r->model);
    language_open_in(&r->model, r->model.context, r->o->start, 0);
}

static void make_dpo(tune_run *r, const prefopt_train_options *train)
{
    prefopt_dpo_options dpo;
    fill_dpo(&dpo, r->o);
    if (!without_reference(r->o)) {
        r->reference = tune_run_reference(r, &r->data, "reference.jsonl");
        r->held_out_reference = tune_run_reference(r, &r->held_out, "reference_held_out.jsonl");
    }
    take_start(r);
    expect_dpo(r);
    CALL(prefopt_trainer_create_dpo(&r->trainer, r->model.policy, r->reference, r->data, &dpo,
                                    train));
    set_evaluation(r);
}

static void fill_sampler(prefopt_sampler_options *s, const tune_options *o)
{
    CALL(prefopt_sampler_options_init(s, sizeof *s));
    s->n = (int64_t)o->samples;
    s->max_tokens = (int64_t)o->max_new;
    s->temperature = o->temperature;
    s->top_k = (int64_t)o->top_k;
    s->top_p = o->top_p;
    s->seed = (uint64_t)o->seed;
}

static void fill_rounds(prefopt_round_options *t, const tune_options *o)
{
    CALL(prefopt_round_options_init(t, sizeof *t));
    t->prompts = (int64_t)o->round_prompts;
    t->steps = (int64_t)o->round_steps;
    t->refresh = (int64_t)o->refresh;
    t->missing_end_penalty = o->missing_end;
    t->reward_scale = (int32_t)o->reward_scale;
    t->reward_clip = o->reward_clip;
}

static void make_online(tune_run *r, const prefopt_train_options *train)
{
    const tune_options *o = r->o;
    prefopt_dpo_options dpo;
    prefopt_sampler_options sampler;
    prefopt_ranker_options ranker;
    prefopt_round_options rounds;
    fill_dpo(&dpo, o);
    fill_sampler(&sampler, o);
    fill_rounds(&rounds, o);
    CALL(prefopt_ranker_options_init(&ranker, sizeof ranker));
    ranker.rule = (int32_t)o->rule;
    ranker.tie_rule = (int32_t)o->ties;
    ranker.soft_labels = o->soft_labels != 0;
    ranker.soft_scale = o->soft_scale;
    ranker.margin_floor = o->margin_floor;
    if (o->rule == PREFOPT_PAIR_RANDOM || o->rule == PREFOPT_PAIR_BEST_RANDOM)
        ranker.seed = (uint64_t)o->seed;
    if (!without_reference(o)) {
        CALL(prefopt_reference_freeze(&r->reference, r->model.policy));
        r->held_out_reference = tune_run_reference(r, &r->held_out, "reference_held_out.jsonl");
    }
    take_start(r);
    expect_dpo(r);
    CALL(prefopt_trainer_create_online_dpo(&r->trainer, r->model.policy, r->reference,
                                           r->reward.reward, r->data, &dpo, &sampler, &ranker,
                                           &rounds, train));
    set_evaluation(r);
}

static void make_pg(tune_run *r, const prefopt_train_options *train)
{
    const tune_options *o = r->o;
    prefopt_pg_options pg;
    prefopt_sampler_options sampler;
    prefopt_round_options rounds;
    CALL(prefopt_pg_options_init(&pg, sizeof pg));
    pg.baseline = (int32_t)o->baseline;
    pg.kl_placement = (int32_t)o->kl_in;
    pg.kl_estimator = PREFOPT_KL_K1 + (int32_t)o->kl_estimator;
    pg.beta = o->beta;
    pg.clip_low = o->clip_low;
    pg.clip_high = o->clip_high;
    fill_sampler(&sampler, o);
    fill_rounds(&rounds, o);
    CALL(prefopt_reference_freeze(&r->reference, r->model.policy));
    take_start(r);
    r->first_margin = o->start == NULL;
    CALL(prefopt_trainer_create_policy_gradient(&r->trainer, r->model.policy, r->reference,
                                                r->reward.reward, r->data, &pg, &sampler, &rounds,
                                                train));
}

/* ---- a training run */

/* Content of what goes in, for the echo. */
static json_t *inputs_of(const tune_options *o)
{
    static const char *const files[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json", "tokenizer.json"};
    const char *const folders[] = {o->model, o->start, o->reward}, *const names[] = {
                                                                       "model", "start", "reward"};
    json_t *inputs = kept_json(json_object());
    for (int k = 0; k < 3; k++)
        for (int i = 0; folders[k] != NULL && i < 4; i++) {
            char *path = language_path(folders[k], files[i]), name[64];
            snprintf(name, sizeof name, "%s/%s", names[k], files[i]);
            if (access(path, F_OK) == 0)
                json_object_set(inputs, name, run_folder_file(path));
        }
    json_object_set(inputs, "data", run_folder_file(o->data));
    if (o->eval_data != NULL)
        json_object_set(inputs, "eval-data", run_folder_file(o->eval_data));
    return inputs;
}

/* Rows that the run learns from, and those held out. */
static void read_data(tune_run *r, const language_model *limits)
{
    const tune_options *o = r->o;
    if (o->eval_data != NULL && o->eval_fraction > 0) {
        fprintf(stderr, "--eval-data and --eval-fraction: one of them\n");
        exit(2);
    }
    static const char *const held_out[] = {"--patience", "--min-delta", "--eval-every"};
    for (int i = 0; i < 3 && o->eval_data == NULL && o->eval_fraction == 0; i++)
        if (tune_options_changed(o, held_out[i])) {
            fprintf(stderr, "%s needs --eval-data%s\n", held_out[i],
                    o->command == TUNE_ONLINE ? "" : " or --eval-fraction");
            exit(2);
        }
    if (o->round_prompts > 0 && o->round_steps == 1 && tune_options_changed(o, "--batch")) {
        fprintf(stderr,
                "--batch is %.0f, but with --round-steps 1 a step is on all that --round-prompts "
                "%.0f draws\n",
                o->batch, o->round_prompts);
        exit(2);
    }
    r->data =
        tune_data_read(o, limits, o->data, stdout, o->eval_fraction > 0 ? &r->held_out : NULL);
    if (o->eval_data != NULL) {
        tune_options pairs = *o;
        if (o->command == TUNE_ONLINE)
            pairs.command = TUNE_DPO;
        pairs.limit = 0;
        r->held_out = tune_data_read(&pairs, &r->model, o->eval_data, stdout, NULL);
    }
    r->rows = prefopt_dataset_size(r->data);
    if (o->command == TUNE_DPO) /* the reference need not answer for rows that no step sees */
        tune_data_some(&r->data, (int64_t)fmin(o->steps * o->batch, 1e18), (uint64_t)o->seed);
}

/* The folder is this run's, or can be. 1: the run is over, and that is said. */
static int claim(const tune_options *o, const json_t *echo, int *again)
{
    const char *folders[] = {o->model, NULL, NULL, NULL};
    int n = 1;
    if (o->reward != NULL)
        folders[n++] = o->reward;
    if (o->start != NULL)
        folders[n++] = o->start;
    run_folder_begin(o->out, folders);
    *again = run_folder_check(o->out, o, echo);
    const json_t *finished = run_folder_finished(o->out);
    if (finished == NULL)
        return 0;
    printf("%s is finished, after step %lld: nothing is left to do (to go on from it, take it as "
           "--model)\n",
           o->out, (long long)json_integer_value(json_object_get(finished, "steps")));
    return 1;
}

static int train(const tune_options *o)
{
    static tune_run r; /* a run that ends with an error, from wherever, leaves what it holds here */
    r = (tune_run){.o = o, .first_loss = NAN};
    prefopt_train_options options;
    check_dpo(o);
    const json_t *echo = run_folder_echo(o, inputs_of(o));
    const char *known = language_path(o->out, "config_echo.json");
    int again = 0, first = tune_ranks_first(), claimed = tune_ranks_same(access(known, F_OK) == 0);
    if (claimed && tune_ranks_same(first && claim(o, echo, &again)))
        return 0;
    prefopt_context *context = tune_judge_context(o);
    language_open_in(&r.model, context, o->model, o->command == TUNE_REWARD);
    if (o->reward != NULL)
        tune_judge_reward(&r.reward, &r.model, o, o->model);
    if (r.model.reward != NULL)
        r.model.positions = run_folder_config(o->model, "max_position_embeddings", 0);
    language_model limits = r.model;
    if (r.reward.positions > 0 && r.reward.positions < limits.positions)
        limits.positions = r.reward.positions;
    read_data(&r, &limits);
    if (!claimed &&
        first) /* a new folder is not made before all that goes in is known to be good */
        claim(o, echo, &again);
    if (first)
        language_copy(language_path(o->model, "tokenizer.json"),
                      language_path(o->out, "tokenizer.json"));
    fill_train(&options, &r);
    switch (o->command) {
    case TUNE_SFT:
        make_sft(&r, &options);
        break;
    case TUNE_REWARD:
        make_reward(&r, &options);
        break;
    case TUNE_DPO:
        make_dpo(&r, &options);
        break;
    case TUNE_ONLINE:
        make_online(&r, &options);
        break;
    default:
        make_pg(&r, &options);
        break;
    }
    if (!again && first) /* the options are good too */
        run_folder_write(o->out, "config_echo.json", echo);
    int code = tune_run_steps(&r);
    prefopt_trainer_destroy(r.trainer);
    prefopt_reference_destroy(r.reference);
    prefopt_reference_destroy(r.held_out_reference);
    prefopt_dataset_destroy(r.data);
    prefopt_dataset_destroy(r.held_out);
    language_close(&r.model);
    language_close(&r.reward);
    prefopt_context_destroy(context);
    return code;
}

int main(int argc, char **argv)
{
    tune_options o;
    tune_ranks_begin(&argc, &argv);
    tune_options_read(&o, argc, argv);
    int code = 0;
    if ((o.command & TUNE_TRAINS) != 0)
        code = train(&o);
    else if (!tune_ranks_first())
        return tune_ranks_end(0); /* the first does it */
    else if (o.command == TUNE_INIT)
        code = init(&o);
    else if (o.command == TUNE_EVAL)
        tune_judge_eval(&o);
    else
        tune_judge_compare(&o);
    return tune_ranks_end(code);
}
