    def grow(self) -> list[Row]:
        """Make room for one more token of each running sequence; the newest gives way.  [5.8 · ★★★ · 30 min]

        A decode step writes the key of the newest token, so each sequence needs pages for all its tokens.  They are served
        in the order of `running`.  While one can't get its pages, the last of `running` is preempted, even if that is the
        sequence itself.  So the oldest always goes on, and everyone gets to be the oldest.  One that has more tokens than
        `longest` can't be helped by anyone: it is finished with "out_of_pages" and listed in `outgrown`.

        Returns:
            A row for the newest token of each sequence that is still running.
        """
        def outgrown(sequence: Sequence) -> bool:
            """End it if no pool is large enough for it."""
            if len(sequence) <= self.longest:
                return False
            self.finish(sequence, "out_of_pages")
            self.outgrown.append(sequence)
            return True

        served = 0  # those before this place in `running` have their pages
        while served < len(self.running):
            sequence, last = self.running[served], self.running[-1]
            if outgrown(sequence):
                continue
            if self.page_table.reserve(sequence.slot, len(sequence)):
                served += 1
            elif not outgrown(last):  # waiting, an outgrown one would block the queue for ever
                self.preempt(last)
        return [Row(sequence, len(sequence) - 1, 1) for sequence in self.running]
