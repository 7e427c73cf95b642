#include "tune_options.h"

#include <limits.h>
#include <math.h>

#include "arguments.h"
#include "cli.h"
#include "kept.h"

enum { MOST_OPTIONS = 128 };

static double *number_of(const tune_options *o, const tune_option *t)
{
    return (double *)((char *)(uintptr_t)o + t->field);
}

static const char **text_of(const tune_options *o, const tune_option *t)
{
    return (const char **)((char *)(uintptr_t)o + t->field);
}

static int is_text(const tune_option *t) { return t->kind == TUNE_TEXT || t->kind == TUNE_FILE; }

/* The option as this command has it; NULL: it has none of that name. */
static const tune_option *find(const char *name, int commands)
{
    for (const tune_option *t = tune_option_table; t->name != NULL; t++)
        if ((t->commands & commands) != 0 && strcmp(t->name, name) == 0)
            return t;
    return NULL;
}

/* ---- help */

static void print_help(const tune_command *c)
{
    printf("%s\n", c->text);
    for (int needed = 1; needed >= 0; needed--) {
        printf(needed ? "needed:\n" : "options (default):\n");
        for (const tune_option *t = tune_option_table; t->name != NULL; t++) {
            if ((t->commands & c->command) == 0 || ((t->needed & c->command) != 0) != needed)
                continue;
            static const char *const kinds[] = {" X", " N", "", " TEXT", " PATH", " WORD"};
            char head[64];
            snprintf(head, sizeof head, "%s%s", t->name, kinds[t->kind]);
            printf("  %-22s %s", head, t->help);
            if (t->unset != NULL && t->kind != TUNE_FLAG)
                printf(" (%s)", t->unset);
            printf("\n");
            if (t->kind == TUNE_CHOICE)
                printf("  %-22s   one of: %s\n", "", t->choices);
        }
    }
    if ((c->command & TUNE_TRAINS) != 0)
        printf(
            "\n--out holds the tuned checkpoint at the end, with tokenizer.json, metrics.jsonl,\n"
            "curves.svg and config_echo.json.\n");
}

static void print_overview(FILE *to)
{
    char commands[2048];
    size_t n = 0;
    for (const tune_command *c = tune_command_table; c->name != NULL; c++)
        n += (size_t)snprintf(commands + n, sizeof commands - n, "  %-8s %s\n", c->name, c->line);
    fprintf(to, tune_overview, commands);
}

/* ---- values */

static double parsed(const tune_option *t, const char *text)
{
    if (t->kind == TUNE_CHOICE)
        return arguments_choice(t->choices, text);
    return strtod(text, NULL);
}

/* A value as the command line would have it. */
static char *value_text(const tune_options *o, const tune_option *t)
{
    char buffer[64] = "";
    const char *text = buffer;
    if (is_text(t))
        text = *text_of(o, t) == NULL ? "" : *text_of(o, t);
    else if (t->kind == TUNE_CHOICE) {
        const char *word = t->choices;
        for (int i = (int)*number_of(o, t); i > 0; i--)
            word += strcspn(word, " ") + 1;
        snprintf(buffer, sizeof buffer, "%.*s", (int)strcspn(word, " "), word);
    } else { /* the shortest text that is this number */
        int digits = 1;
        do
            snprintf(buffer, sizeof buffer, "%.*g", digits, *number_of(o, t));
        while (strtod(buffer, NULL) != *number_of(o, t) && digits++ < 17);
        if (t->kind != TUNE_NUMBER)
            snprintf(buffer, sizeof buffer, "%.0f", *number_of(o, t));
    }
    return kept(strdup(text), free);
}

static void give_json_back(void *value) { json_decref(value); }

json_t *kept_json(json_t *value) { return kept(value, give_json_back); }

/* A value as tune_options_json writes it, which somebody may have edited. */
static void take_value(tune_options *o, const tune_option *t, const json_t *value, const char *path)
{
    const char *text = json_string_value(value), *expected = NULL;
    char range[96];
    double number = json_number_value(value);
    if (is_text(t)) {
        expected = text == NULL ? "a text" : NULL;
        *text_of(o, t) = text;
    } else if (t->kind == TUNE_CHOICE) {
        number = text == NULL ? -1 : arguments_choice(t->choices, text);
        expected = number < 0 ? t->choices : NULL;
    } else {
        double high = t->kind == TUNE_FLAG ? 1 : t->high;
        int whole = t->kind != TUNE_NUMBER;
        snprintf(range, sizeof range, "a %snumber from %.15g to %.15g", whole ? "whole " : "",
                 t->low, high);
        if (!json_is_number(value) || !(number >= t->low && number <= high) ||
            (whole && number != floor(number)))
            expected = range;
    }
    if (expected != NULL) {
        char *shown = json_dumps(value, JSON_ENCODE_ANY);
        fprintf(stderr, "%s: \"%s\" is %s, expected %s%s\n", path, t->name + 2,
                shown == NULL ? "?" : shown, t->kind == TUNE_CHOICE ? "one of: " : "", expected);
        free(shown);
        exit(1);
    }
    if (!is_text(t))
        *number_of(o, t) = number;
}

/* Takes the options of another run's echo; one of another command, or of no use here, is an
 * error. */
static void take_config(tune_options *o, const char *path)
{
    json_error_t error;
    json_t *echo = json_load_file(path, 0, &error), *value;
    const char *name;
    if (echo != NULL)
        kept_json(echo); /* the options' texts lie in it */
    if (echo == NULL || !json_is_object(json_object_get(echo, "options"))) {
        fprintf(stderr, "%s: %s\n", path,
                echo == NULL ? error.text : "no \"options\", expected a config_echo.json of tune");
        exit(1);
    }
    const char *command = json_string_value(json_object_get(echo, "command"));
    if (command == NULL || strcmp(command, o->command_name) != 0) {
        fprintf(stderr, "%s is of tune %s, not of tune %s\n", path,
                command == NULL ? "(nothing)" : command, o->command_name);
        exit(2);
    }
    json_object_foreach(json_object_get(echo, "options"), name, value)
    {
        char option[64];
        snprintf(option, sizeof option, "--%s", name);
        const tune_option *t = find(option, o->command);
        if (t == NULL) {
            fprintf(stderr, "%s: \"%s\" is nothing that tune %s takes\n", path, name,
                    o->command_name);
            exit(1);
        }
        if (strcmp(option, "--out") == 0)
            continue; /* the point is another one */
        take_value(o, t, value, path);
    }
}

/* Options of other commands, said as such. */
static void check_names(const tune_options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const tune_option *t = find(argv[i], o->command);
        if (t != NULL) {
            i += t->kind != TUNE_FLAG;
            continue;
        }
        if (strncmp(argv[i], "--", 2) != 0 || argv[i][2] == '\0')
            continue;
        int whose = 0;
        for (const tune_option *other = tune_option_table; other->name != NULL; other++)
            whose |= strcmp(other->name, argv[i]) == 0 ? other->commands : 0;
        if (whose == 0) {
            fprintf(stderr, "unknown option %s (tune %s --help has them all)\n", argv[i],
                    o->command_name);
            exit(2);
        }
        fprintf(stderr, "%s is no option of tune %s, but of", argv[i], o->command_name);
        for (const tune_command *c = tune_command_table; c->name != NULL; c++)
            if ((whose & c->command) != 0)
                fprintf(stderr, " %s", c->name);
        fprintf(stderr, "\n");
        exit(2);
    }
}

void tune_options_read(tune_options *o, int argc, char **argv)
{
    *o = (tune_options){0};
    const tune_command *c = tune_command_table;
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_overview(argc < 2 ? stderr : stdout);
        exit(argc < 2 ? 2 : 0);
    }
    while (c->name != NULL && strcmp(c->name, argv[1]) != 0)
        c++;
    if (c->name == NULL) {
        fprintf(stderr, "unknown command \"%s\" (tune --help has them all)\n", argv[1]);
        exit(2);
    }
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(c);
            exit(0);
        }
    o->command = c->command;
    o->command_name = c->name;
    argument list[MOST_OPTIONS];
    int n = 0;
    for (const tune_option *t = tune_option_table; t->name != NULL; t++) {
        if ((t->commands & c->command) == 0 || n == MOST_OPTIONS - 1)
            continue;
        list[n] = (argument){.name = t->name, .low = t->low, .high = t->high};
        list[n].whole = t->kind == TUNE_WHOLE;
        list[n].choices = t->choices;
        if (is_text(t))
            list[n].text = text_of(o, t);
        else {
            list[n].value = number_of(o, t);
            *list[n].value = parsed(t, t->unset);
        }
        n++;
    }
    list[n] = (argument){0};
    check_names(o, argc - 1, argv + 1);
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], "--config") == 0 && find("--config", o->command) != NULL)
            take_config(o, argv[i + 1]);
    arguments_read(argc - 1, argv + 1, NULL, list, o->words, 0, c->words);
    if (c->words > 0 && o->words[1] == NULL) {
        fprintf(stderr, "tune %s takes two folders, A and B (tune %s --help)\n", c->name, c->name);
        exit(2);
    }
    for (const tune_option *t = tune_option_table; t->name != NULL; t++)
        if ((t->needed & c->command) != 0 && *text_of(o, t) == NULL) {
            fprintf(stderr, "%s is missing: %s (tune %s --help)\n", t->name, t->help, c->name);
            exit(2);
        }
}

/* ---- the echo */

/* Also of a folder that is still to be made, in one that is there. */
static char *absolute(const char *path)
{
    char *whole = realpath(path, NULL);
    size_t n = strlen(path), name;
    if (whole != NULL)
        return kept(whole, free);
    while (n > 1 && path[n - 1] == '/')
        n--;
    for (name = n; name > 0 && path[name - 1] != '/';)
        name--;
    char *folder = kept(name > 0 ? strndup(path, name) : strdup("."), free);
    if ((folder = realpath(folder, NULL)) == NULL)
        return kept(strdup(path), free);
    size_t size = strlen(folder) + n - name + 2;
    whole = kept(malloc(size), free);
    snprintf(whole, size, "%s/%.*s", folder[1] == '\0' ? "" : folder, (int)(n - name), path + name);
    free(folder);
    return whole;
}

json_t *tune_options_json(const tune_options *o)
{
    json_t *all = kept_json(json_object());
    for (const tune_option *t = tune_option_table; t->name != NULL; t++) {
        if ((t->commands & o->command) == 0 || (is_text(t) && *text_of(o, t) == NULL))
            continue;
        json_t *value;
        if (t->kind == TUNE_CHOICE || t->kind == TUNE_TEXT)
            value = json_string(value_text(o, t));
        else if (t->kind == TUNE_FILE)
            value = json_string(absolute(*text_of(o, t)));
        else if (t->kind == TUNE_NUMBER)
            value = json_real(*number_of(o, t));
        else
            value = json_integer((json_int_t)*number_of(o, t));
        if (json_object_set_new(all, t->name + 2, value) != 0) {
            fprintf(stderr, "%s is \"%s\", which is no UTF-8\n", t->name, *text_of(o, t));
            exit(2);
        }
    }
    return all;
}

/* Within a shell's single quotes. */
static void quoted(FILE *to, const char *text)
{
    if (text[0] != '\0' && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789_./-+:=@,") == strlen(text)) {
        fputs(text, to);
        return;
    }
    fputc('\'', to);
    for (; *text != '\0'; text++)
        if (*text == '\'')
            fputs("'\\''", to);
        else
            fputc(*text, to);
    fputc('\'', to);
}

char *tune_options_line(const tune_options *o)
{
    char *line;
    size_t size;
    FILE *to = open_memstream(&line, &size);
    if (to == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    fprintf(to, "tune %s", o->command_name);
    for (const tune_option *t = tune_option_table; t->name != NULL; t++) {
        if ((t->commands & o->command) == 0 || strcmp(t->name, "--config") == 0)
            continue;
        if (is_text(t) ? *text_of(o, t) == NULL : *number_of(o, t) == parsed(t, t->unset))
            continue;
        char *text = t->kind == TUNE_FILE ? absolute(*text_of(o, t)) : value_text(o, t);
        fprintf(to, " %s", t->name);
        if (t->kind != TUNE_FLAG) {
            fputc(' ', to);
            quoted(to, text);
        }
    }
    return kept(fclose(to) == 0 ? line : NULL, free);
}

int tune_options_changed(const tune_options *o, const char *name)
{
    const tune_option *t = find(name, o->command);
    return t != NULL && !is_text(t) && *number_of(o, t) != parsed(t, t->unset);
}

const tune_option *tune_options_differ(const tune_options *o, const json_t *echo, char **then,
                                       char **now)
{
    for (const tune_option *t = tune_option_table; t->name != NULL; t++) {
        if ((t->commands & o->command) == 0 || t->free || t->kind == TUNE_FILE)
            continue;
        const json_t *value = json_object_get(echo, t->name + 2);
        tune_options other = {0};
        const char *text = json_string_value(value);
        if (is_text(t))
            *text_of(&other, t) = text;
        else
            *number_of(&other, t) = text != NULL ? parsed(t, text) : json_number_value(value);
        *then = value_text(&other, t);
        *now = value_text(o, t);
        if (strcmp(*then, *now) != 0)
            return t;
    }
    return NULL;
}
