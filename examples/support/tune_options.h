/* The command line of tune: which option belongs to which command, its help, its default, and the
 * JSON echo from which a run can be repeated. */
#ifndef EXAMPLE_TUNE_OPTIONS_H
#define EXAMPLE_TUNE_OPTIONS_H

#include <stddef.h>

#include <jansson.h>

/* One bit each, so that the table can say "of these". */
enum {
    TUNE_INIT = 1,
    TUNE_SFT = 2,
    TUNE_REWARD = 4,
    TUNE_DPO = 8,
    TUNE_ONLINE = 16,
    TUNE_PG = 32,
    TUNE_EVAL = 64,
    TUNE_COMPARE = 128,
    TUNE_PAIRS = TUNE_REWARD | TUNE_DPO,
    TUNE_SAMPLED = TUNE_ONLINE | TUNE_PG,
    TUNE_TRAINS = TUNE_SFT | TUNE_PAIRS | TUNE_SAMPLED
};

/* Numbers are doubles, whole ones too; of choices the place in the table's list, which is the
 * library's own number; texts that were not given are NULL. */
typedef struct tune_options {
    int command;
    const char *command_name;
    const char *words[2]; /* of compare */
    const char *model, *data, *out, *reward, *reference, *start, *eval_data, *tokenizer, *eos,
        *json, *config;
    double layers, width, heads, ff_width, positions, vocab, tied, init_scale;
    double steps, batch, micro_batch, seed, lr, warmup, schedule, final_fraction, clip,
        weight_decay, decay_vectors;
    double max_prompt, max_completion, limit, whole_text;
    double eval_fraction, eval_every, patience, min_delta, final;
    double save_every, keep, log_every, threads, memory;
    double beta, variant, label_smoothing, gamma, delta, tau, lambda, divergence;
    double centre, tie_model;
    double round_prompts, round_steps, refresh, missing_end, reward_scale, reward_clip;
    double samples, max_new, temperature, top_k, top_p;
    double rule, ties, soft_labels, soft_scale, margin_floor;
    double baseline, kl_in, kl_estimator, clip_low, clip_high;
} tune_options;

/* What an option's value is. */
enum tune_kind { TUNE_NUMBER, TUNE_WHOLE, TUNE_FLAG, TUNE_TEXT, TUNE_FILE, TUNE_CHOICE };

typedef struct {
    const char *name; /* "--steps" */
    int commands;     /* whose it is */
    int needed;       /* of them: that do not go without */
    int kind;
    size_t field;        /* of tune_options */
    double low, high;    /* numbers */
    const char *choices; /* TUNE_CHOICE: separated by spaces */
    const char *unset;   /* the default as text; NULL: none */
    int free;            /* 1: may change when a run is resumed */
    const char *help;
} tune_option;

typedef struct {
    const char *name;
    int command;
    int words; /* that it takes beside its options */
    const char *line, *text;
} tune_command;

/* The table and the texts; a NULL name ends each. */
extern const tune_option tune_option_table[];
extern const tune_command tune_command_table[];
extern const char tune_overview[];

/* Reads the command line. On --help it prints that and exits 0; on anything that does not fit, one
 * line on stderr and exit 2. */
void tune_options_read(tune_options *o, int argc, char **argv);

/* The value, which lives as long as the program; see kept.h. */
json_t *kept_json(json_t *value);

/* What these give lives as long. All options of the command as a JSON object, files with their
 * absolute paths. */
json_t *tune_options_json(const tune_options *o);

/* The shell's line that gives these options again. */
char *tune_options_line(const tune_options *o);

/* Whether the command has that number or choice and it is not the default. */
int tune_options_changed(const tune_options *o, const char *name);

/* The first option that matters to a run and differs from what `echo` (made by tune_options_json)
 * has; NULL: none. Texts that name files are not compared: their contents are. *then, *now: both
 * values as texts. */
const tune_option *tune_options_differ(const tune_options *o, const json_t *echo, char **then,
                                       char **now);

#endif
