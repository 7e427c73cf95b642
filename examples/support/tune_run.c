#include "tune_run.h"

#include <math.h>
#include <signal.h>

#include "cli.h"
#include "run_folder.h"
#include "tune_ranks.h"

static volatile sig_atomic_t stop_asked;

/* A second signal ends the program at once. */
static void on_signal(int number)
{
    static const char text[] = "\nsaving after this step, then ending (once more: ending now)\n";
    stop_asked = 1;
    signal(number, SIG_DFL);
    if (isatty(STDERR_FILENO) && write(STDERR_FILENO, text, sizeof text - 1) < 0)
        return;
}

static void listen(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* ---- the reference */

static int32_t annotated(void *payload, int64_t done, int64_t total)
{
    progress_line(payload, done, total);
    return stop_asked;
}

prefopt_reference *tune_run_reference(tune_run *r, prefopt_dataset **data, const char *name)
{
    prefopt_reference *policy, *answers;
    prefopt_dataset *known = NULL;
    if (*data == NULL)
        return NULL;
    char *path = language_path(r->o->out, name);
    if (access(path, F_OK) == 0) {
        CALL(prefopt_dataset_read_jsonl(&known, r->model.context, path));
        if (prefopt_dataset_hash(known) == prefopt_dataset_hash(*data)) {
            prefopt_dataset *fresh = *data;
            *data = known;
            known = fresh;
        }
        prefopt_dataset_destroy(known);
    }
    listen();
    double start = language_seconds();
    CALL(prefopt_reference_freeze(&policy, r->model.policy));
    progress_line("rows, by the reference", 0, 1);
    int32_t status = prefopt_collective_annotate(tune_ranks_collective(), policy, *data, annotated,
                                                 "rows, by the reference");
    prefopt_reference_destroy(policy);
    CALL(status);
    if (tune_ranks_first())
        CALL(prefopt_dataset_write_jsonl(*data, path));
    if (status == PREFOPT_STOPPED) {
        printf("stopped before the first step; what the reference said is kept: the same command "
               "goes on from there\n");
        exit(tune_ranks_end(0));
    }
    printf("  reference: log-probabilities of %lld rows in %.2f s\n",
           (long long)prefopt_dataset_size(*data), language_seconds() - start);
    CALL(prefopt_reference_from_dataset(&answers, *data));
    return answers;
}

/* ---- what is said */

static void span(char *text, size_t size, double seconds)
{
    long s = isfinite(seconds) ? (long)ceil(seconds) : 0;
    if (s < 3600)
        snprintf(text, size, "%ld:%02ld", s / 60, s % 60);
    else
        snprintf(text, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
}

/* " name value" where there is one. */
static size_t item(char *line, size_t n, size_t size, const char *format, double value)
{
    int m = isnan(value) || n >= size ? 0 : snprintf(line + n, size - n, format, value);
    return n + (size_t)m;
}

/* Of sft: exact where all prompts are of one length (texts without a prompt, --whole-text) and no
 * two rows are the same, of which a step counts the tokens once; else by the mean length of all
 * completions, which the batch's may differ from. */
static double by_token(const tune_run *r, const prefopt_progress *p)
{
    double n = fmin(r->o->batch, (double)r->rows);
    double length =
        r->prompt_length >= 0 ? (double)p->tokens / n - (double)r->prompt_length : r->mean_length;
    return r->mean_length > 0 && length > 0 ? p->loss / length : NAN;
}

static void say(tune_run *r, const prefopt_progress *p)
{
    char line[400], left[32];
    double now = language_seconds(), seconds = now - r->start;
    int64_t every = (r->steps + 9) / 10, done = r->step - r->begun;
    int keep = r->step == r->steps || r->step % every == 0 || stop_asked;
    if (!keep && (now - r->shown < 0.1 || !isatty(STDERR_FILENO)))
        return;
    r->shown = now;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    span(left, sizeof left, rate > 0 ? (double)(r->steps - r->step) / rate : 0);
    size_t n = (size_t)snprintf(line, sizeof line, "step %lld/%lld", (long long)r->step,
                                (long long)r->steps),
           size = sizeof line;
    n = item(line, n, size, "  loss %.4f", r->o->command == TUNE_PG ? NAN : p->loss);
    n = item(line, n, size, "  by token %.4f", by_token(r, p));
    n = item(line, n, size, "  score %.4f", p->score_mean);
    n = item(line, n, size, "  accuracy %.2f", p->accuracy);
    n = item(line, n, size, "  margin %+.4f", p->margin);
    n = item(line, n, size, "  kl %.4f", p->kl);
    if (p->eval_step == r->step)
        n = item(line, n, size, "  held out %.4f", p->eval_loss);
    n = item(line, n, size, "  %.3g steps/s", rate);
    n = item(line, n, size, "  %.0f tokens/s", r->tokens > 0 ? r->tokens / seconds : NAN);
    if (n < size)
        snprintf(line + n, size - n, "  %s left", left);
    if (isatty(STDERR_FILENO)) /* written over, or wiped for the line that stays */
        fprintf(stderr, "\r\033[K%s", keep ? "" : line);
    if (keep)
        printf("%s\n", line);
    fflush(stdout);
}

/* What the first step shows before anything is learnt. */
static void check_first(const tune_run *r, const prefopt_progress *p)
{
    const char *what = r->o->command == TUNE_PG ? "KL" : "margin";
    double margin = r->o->command == TUNE_PG ? p->kl : p->margin;
    int loss_off = !isnan(r->first_loss) && fabs(p->loss - r->first_loss) > 1e-4;
    int margin_off = r->first_margin && !isnan(margin) && fabs(margin) > 1e-4;
    if (loss_off || margin_off)
        fprintf(stderr,
                "step 0: loss %.6f, %s %.6f: NOT as it should be before anything is learnt (%s%s%s "
                "0)\n",
                p->loss, what, margin, isnan(r->first_loss) ? "" : "loss log 2 = 0.693147, ", what,
                "");
    else if (r->first_margin && !isnan(margin))
        printf("step 0: loss %.6f, %s %.6f: as it should be before anything is learnt\n", p->loss,
               what, margin);
}

/* How often each row (prompt) had its turn. */
static double epochs(const tune_run *r, const prefopt_progress *p)
{
    double rows = (double)r->rows, turns = (double)r->step, each = fmin(r->o->batch, rows);
    if (r->o->round_prompts > 0)
        each = fmin(r->o->round_prompts, rows);
    if ((r->o->command & TUNE_SAMPLED) != 0)
        turns = (double)p->round + 1;
    return turns * each / rows;
}

static void write_metrics(tune_run *r, const prefopt_progress *p)
{
    metrics *m = r->metrics;
    metrics_begin(m, r->step);
    metrics_number(m, "epoch", epochs(r, p));
    metrics_number(m, "loss", p->loss);
    metrics_number(m, "loss_per_token", by_token(r, p));
    metrics_number(m, "grad_norm", p->grad_norm);
    metrics_number(m, "learning_rate", p->learning_rate);
    metrics_number(m, "rewards/chosen", p->chosen_score);
    metrics_number(m, "rewards/rejected", p->rejected_score);
    metrics_number(m, "rewards/margins", p->margin);
    metrics_number(m, "rewards/accuracies", p->accuracy);
    metrics_number(m, "logps/chosen", p->chosen_logp);
    metrics_number(m, "logps/rejected", p->rejected_logp);
    metrics_number(m, "objective/kl", p->kl);
    if (p->round >= 0) {
        metrics_whole(m, "round", p->round);
        metrics_number(m, "objective/scores", p->score_mean);
        metrics_number(m, "objective/scores_std", p->score_sd);
        metrics_number(m, "reward", p->reward); /* as learnt from: penalty, scale and clip done */
        metrics_number(m, "completions/clipped_ratio", 1 - p->ended);
        metrics_number(m, "policy/clipfrac_avg", p->clip_fraction);
        metrics_number(m, "seconds/sampling", p->seconds_sampling);
        metrics_number(m, "seconds/scoring", p->seconds_scoring);
        metrics_number(m, "seconds/training", p->seconds_training);
    }
    if (p->pairs >= 0)
        metrics_whole(m, "pairs", p->pairs);
    if (p->eval_step == r->step) {
        metrics_number(m, "eval_loss", p->eval_loss);
        if (r->held_out_length > 0)
            metrics_number(m, "eval_loss_per_token", p->eval_loss / r->held_out_length);
        metrics_number(m, "eval_rewards/accuracies", p->eval_accuracy);
        metrics_number(m, "eval_rewards/margins", p->eval_margin);
    }
    if (r->step > 0) {
        metrics_whole(m, "tokens", p->tokens);
        metrics_number(m, "seconds", language_seconds() - r->start);
    }
    metrics_end(m);
}

/* The checkpoint to go on from. What metrics.jsonl says up to it is on the disk before. */
static int32_t save(tune_run *r)
{
    prefopt_save_options options;
    CALL(prefopt_save_options_init(&options, sizeof options));
    options.keep = (int64_t)r->o->keep;
    metrics_sync(r->metrics);
    return prefopt_trainer_save(r->trainer, r->checkpoints, &options);
}

int32_t tune_run_progress(void *payload, const prefopt_progress *p)
{
    tune_run *r = payload;
    if (p->n_steps == 0) { /* the last evaluation: into the line that waits */
        r->last.eval_loss = p->eval_loss;
        r->last.eval_accuracy = p->eval_accuracy;
        r->last.eval_margin = p->eval_margin;
        r->last.eval_step = p->eval_step;
        return PREFOPT_OK;
    }
    if (p->step == 0 && r->begun > 0)
        return PREFOPT_OK;
    r->step = r->begun + p->step;
    if (!tune_ranks_first())
        return stop_asked && r->step < r->steps ? PREFOPT_STOPPED : PREFOPT_OK;
    r->tokens += (double)p->tokens;
    if (r->step == 1)
        check_first(r, p);
    if (r->step == r->steps) {
        r->last = *p;
        return PREFOPT_OK;
    }
    if (r->step % (int64_t)r->o->log_every == 0 || p->eval_step == r->step)
        write_metrics(r, p);
    say(r, p);
    if (r->step > 0 && r->step % r->save_every == 0 && !stop_asked)
        CALL(save(r));
    return stop_asked ? PREFOPT_STOPPED : PREFOPT_OK;
}

/* ---- the end */

static int draw(const tune_run *r)
{
    static const metrics_panel sft[] = {{"Likelihood", "nats a token", NULL, {"loss_per_token"}},
                                        {"Gradient", "norm before clipping", NULL, {"grad_norm"}}};
    static const metrics_panel pairs[] = {
        {"Loss", "nats", NULL, {"loss", "eval_loss"}},
        {"Accuracy", "share of pairs", "[0:1]", {"rewards/accuracies", "eval_rewards/accuracies"}},
        {"Rewards",
         "nats",
         NULL,
         {"rewards/margins", "rewards/chosen", "rewards/rejected", "eval_rewards/margins"}},
        {"Log-probability", "nats a completion", NULL, {"logps/chosen", "logps/rejected"}}};
    static const metrics_panel online[] = {
        {"Reward of the samples", "score", NULL, {"objective/scores"}},
        {"KL to the reference", "nats", NULL, {"objective/kl"}},
        {"Loss", "nats", NULL, {"loss", "eval_loss"}},
        {"Pairs", "nats", NULL, {"rewards/margins", "eval_rewards/margins"}}};
    static const metrics_panel pg[] = {
        /* its loss is 0 wherever advantages add up to 0 */
        {"Reward of the samples", "score", NULL, {"objective/scores"}},
        {"KL to the reference", "nats", NULL, {"objective/kl"}},
        {"Completions without end", "share", "[0:1]", {"completions/clipped_ratio"}},
        {"Gradient", "norm before clipping", NULL, {"grad_norm"}}};
    char title[300];
    const char *name = r->o->out + strlen(r->o->out);
    while (name > r->o->out && (name[-1] != '/' || name[0] == '\0'))
        name--;
    snprintf(title, sizeof title, "tune %s: %s", r->o->command_name, name);
    char *from = language_path(r->o->out, "metrics.jsonl");
    char *to = language_path(r->o->out, "curves.svg");
    const metrics_panel *panels = pairs;
    if (r->o->command == TUNE_SFT)
        panels = sft;
    else if ((r->o->command & TUNE_SAMPLED) != 0)
        panels = r->o->command == TUNE_PG ? pg : online;
    int failed = metrics_picture(from, to, title, panels, panels == sft ? 2 : 4);
    if (failed == 0)
        printf("%s: the curves\n", to);
    return failed;
}

static void write_checkpoint(const tune_run *r)
{
    if (r->model.policy != NULL)
        CALL(prefopt_policy_save(r->model.policy, r->o->out));
    else
        CALL(prefopt_reward_save(r->model.reward, r->o->out));
}

static void go_on(tune_run *r)
{
    int64_t step;
    CALL(prefopt_checkpoint_latest(r->checkpoints, &step, NULL, 0, NULL));
    if (step >= 0) {
        CALL(prefopt_trainer_restore(r->trainer, r->checkpoints));
        printf("going on after step %lld\n", (long long)step);
        r->begun = step;
    }
}

/* Where the time of a sampled run went. */
static void say_split(const prefopt_progress *p)
{
    double all = p->seconds_sampling + p->seconds_scoring + p->seconds_training;
    if (p->round >= 0 && all > 0)
        printf("time: sampling %.0f %%, scoring %.0f %%, training %.0f %% of %.1f s\n",
               100 * p->seconds_sampling / all, 100 * p->seconds_scoring / all,
               100 * p->seconds_training / all, all);
}

/* All steps are done, or patience is out: the last evaluation, the checkpoint in OUT, the curves.
 */
static int finish(tune_run *r, const prefopt_progress *stopped)
{
    int early = stopped->stopped_early;
    prefopt_progress best = {.struct_size = sizeof best};
    if (r->held_out != NULL)
        CALL(prefopt_trainer_run(r->trainer, 0, &best));
    if (!tune_ranks_first())
        return 0;
    if (!early && r->begun < r->steps) {
        write_metrics(r, &r->last);
        say(r, &r->last);
        say_split(&r->last);
    }
    CALL(save(r));
    json_t *end = kept_json(json_pack("{s:I}", "steps", (json_int_t)r->step));
    if (early)
        printf("stopped early, after step %lld: the held-out loss was lowest after step %lld\n",
               (long long)r->step, (long long)stopped->best_step);
    if (r->held_out != NULL && r->o->final == 0) {
        CALL(prefopt_trainer_restore_best(r->trainer));
        printf("held-out loss %.4f, the lowest, after step %lld: %s holds those weights\n",
               best.best_eval_loss, (long long)best.best_step, r->o->out);
        json_object_set_new(end, "best_step", json_integer(best.best_step));
        json_object_set_new(end, "best_eval_loss", json_real(best.best_eval_loss));
    }
    metrics_close(r->metrics);
    write_checkpoint(r);
    printf("%s: the tuned checkpoint\n", r->o->out);
    draw(r);
    run_folder_write(r->o->out, "finished.json", end);
    return 0;
}

int tune_run_steps(tune_run *r)
{
    prefopt_progress last = {.struct_size = sizeof last};
    r->checkpoints = language_path(r->o->out, "checkpoints");
    r->steps = (int64_t)r->o->steps;
    r->save_every = (int64_t)(r->o->save_every > 0 ? r->o->save_every : ceil(r->o->steps / 10));
    go_on(r);
    r->step = r->begun;
    if (tune_ranks_first())
        r->metrics =
            metrics_open(language_path(r->o->out, "metrics.jsonl"), r->begun > 0 ? r->begun : -1);
    listen();
    r->start = language_seconds();
    int32_t status = r->begun == r->steps
                         ? PREFOPT_OK
                         : prefopt_trainer_run(r->trainer, r->steps - r->begun, &last);
    if (status < 0) {
        if (tune_ranks_first()) /* all say the same */
            fprintf(stderr, "%s: %s\n", prefopt_status_name(status), prefopt_last_error());
        metrics_close(r->metrics);
        return 1;
    }
    if (status == PREFOPT_OK || last.stopped_early)
        return finish(r, &last);
    if (!tune_ranks_first())
        return 0;
    CALL(save(r));
    metrics_close(r->metrics);
    printf("stopped after step %lld of %lld and saved: the same command goes on from there\n",
           (long long)r->step, (long long)r->steps);
    return 0;
}
