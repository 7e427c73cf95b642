/* The folder of a run: whether it can be written to, what it was begun with, what is in it. */
#ifndef EXAMPLE_RUN_FOLDER_H
#define EXAMPLE_RUN_FOLDER_H

#include "tune_options.h"

/* Makes the folder where it is not there, proves that files can be made in it, and holds it as long
 * as the program runs, so that no second run writes to it. Ends the program with one line on stderr
 * where that fails, or where the folder is one of `inputs` (NULL ends them; exit 2). */
void run_folder_begin(const char *out, const char *const *inputs);

/* {"path", "bytes", "hash"} of a file: FNV-1a of its bytes, 64 bits. All JSON of this header lives
 * as long as the program. */
json_t *run_folder_file(const char *path);

/* What a run is made of, for config_echo.json: program and library version, options, and inputs (a
 * JSON object of one each, by name). Says on stderr which inputs have another content than those of
 * the run that --config names. */
json_t *run_folder_echo(const tune_options *o, json_t *inputs);

/* Compares with the config_echo.json that lies in the folder. 1: the folder has a run of this kind
 * already, 0: it can begin here. The program ends with one line where the run that lies there is
 * another, or the folder has files that a run would write over. */
int run_folder_check(const char *out, const tune_options *o, const json_t *echo);

/* Writes JSON so that the file appears whole, or stays as it was and the program ends. */
void run_folder_json(const char *path, const json_t *value);

/* The same in a folder. */
void run_folder_write(const char *folder, const char *name, const json_t *value);

/* finished.json of a run that is over; NULL: it is not. */
json_t *run_folder_finished(const char *out);

/* A number of a checkpoint's config.json, `missing` where it is not there. */
int64_t run_folder_config(const char *folder, const char *name, int64_t missing);

#endif
