def check_done(self) -> str | None:
        """Why the sequence ends with its newest token, or None if it goes on.  [5.1 · ★★☆ · 10 min]

        Returns:
            "stop" if the newest token is one of `eos_token_ids` (unless `params.ignore_eos`), or one of
            `params.stop_token_ids` (always); else
            "length" if `params.max_new_tokens` tokens have been generated or the sequence has `max_length` tokens; else
            None, also while nothing has been generated.

        >>> Sequence(0, [5, 6], SamplingParams(max_new_tokens=2), output_ids=[7]).check_done()
        >>> Sequence(0, [5, 6], SamplingParams(max_new_tokens=2), output_ids=[7, 8]).check_done()
        'length'
        >>> Sequence(0, [5, 6], eos_token_ids=frozenset({1, 106}), output_ids=[7, 106]).check_done()
        'stop'
        """
        if not self.output_ids:
            return None
        newest, params = self.output_ids[-1], self.params
        ended = newest in self.eos_token_ids and not params.ignore_eos
        if ended or newest in params.stop_token_ids:
            return "stop"
        # `pending` tokens come after the newest one, so they don't count here.
        generated = len(self.output_ids)
        full = generated >= params.max_new_tokens or len(self.prompt_ids) + generated >= self.max_length
        return "length" if full else None
