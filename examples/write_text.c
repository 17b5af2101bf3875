#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "text.h"

static float state[TEXT_STATE], log_p[TEXT_VOCABULARY];

static int draw(float temperature)          /* an entry, as likely as the model says */
{
    float p[TEXT_VOCABULARY], left = 0;
    for (int i = 2; i < TEXT_VOCABULARY; i++)
        left += p[i] = expf(log_p[i] / temperature);
    left *= (float)rand() / (float)RAND_MAX;
    for (int i = 2; i < TEXT_VOCABULARY; i++)
        if ((left -= p[i]) <= 0) return i;
    return TEXT_VOCABULARY - 1;
}

int main(int count, char **words)           /* ./write [prompt [seed]] */
{
    const char *prompt = count > 1 ? words[1] : "";
    srand(count > 2 ? (unsigned)atoi(words[2]) : 1);
    text_read(state, TEXT_START, log_p);
    for (int i = 2; *prompt && i < TEXT_VOCABULARY; i++) {   /* the entry that the prompt goes on with */
        size_t length = strlen(text_text(i));
        if (length && !strncmp(prompt, text_text(i), length)) {
            text_read(state, i, log_p);
            printf("%s", text_text(i));
            prompt += length, i = 1;
        }
    }
    for (int n = 0; n < 400; n++) {
        int token = draw(0.8f);
        printf("%s", text_text(token));
        text_read(state, token, log_p);
    }
    puts("");
}
