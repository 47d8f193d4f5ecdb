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
        made = len(self.output_ids)
        if made == 0:
            return None
        endings = self.params.stop_token_ids
        if not self.params.ignore_eos:
            endings = endings.union(self.eos_token_ids)
        if self.output_ids[-1] in endings:
            return "stop"
        # What is still pending comes after the newest token, so len(self) would count too many here.
        room = min(self.params.max_new_tokens - made, self.max_length - len(self.prompt_ids) - made)
        return "length" if room <= 0 else None
