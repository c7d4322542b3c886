//! From a request to its answer: what is known, then the store, then, without it, this node alone.

use super::batch::Call;
use super::*;

impl Inner {
    /// The whole way of a request.
    pub(super) async fn rule(self: &Arc<Self>, request: &mut Request) -> Result<Ruled, Away> {
        if request.impossible() {
            return Ok(ruled(Admission::Impossible, Decided::Node));
        }
        if let Some(admission) = self.known_refusal(request) {
            count(&self.counters.denials_cached, 1);
            return Ok(ruled(admission, Decided::Node));
        }
        if self.owing.load(Ordering::Relaxed) > 0 {
            Box::pin(self.settle_keys(request)).await;
        }
        self.lease(request);
        if request.want == Want::DecisionAndSequence && request.paid() {
            let sequence = self.ask(Call::reading()).await.ok().and_then(|told| told.sequence);
            sequence.iter().for_each(|sequence| self.heard(sequence));
            return Ok(Ruled { sequence, ..ruled(Admission::Admitted, Decided::Node) });
        }
        let parts = request.plan(self.link.is_cluster());
        if parts.is_empty() {
            return Ok(ruled(Admission::Admitted, Decided::Node));
        }
        // Most requests end before this, and need not carry what it takes.
        Box::pin(self.rule_by_store(request, parts)).await
    }

    async fn rule_by_store(self: &Arc<Self>, request: &mut Request, mut parts: Vec<Part>) -> Result<Ruled, Away> {
        let sent = Instant::now();
        let mut answers = self.ask_parts(request, &parts).await;
        let apart = |answer: &Result<Taken, Unavailable>| matches!(answer, Err(Unavailable::Apart));
        if answers.iter().any(apart) {
            let asked = parts.into_iter().zip(answers);
            let (apart, whole): (Vec<_>, Vec<_>) = asked.partition(|(_, answer)| apart(answer));
            let single: Vec<Part> = apart.into_iter().flat_map(|(part, _)| part.split()).collect();
            (parts, answers) = whole.into_iter().unzip();
            answers.extend(self.ask_parts(request, &single).await);
            parts.extend(single);
        }
        // The caller's clock may be a test's, so the time that passed is added to it.
        let received = request.mono + sent.elapsed();
        self.weigh(request, &parts, answers, received).await
    }

    /// All at once.
    async fn ask_parts(self: &Arc<Self>, request: &Request, parts: &[Part]) -> Vec<Result<Taken, Unavailable>> {
        let ask = |part| self.ask(request.call(part, &self.names));
        match parts {
            [one] => vec![ask(one).await],
            many => join_all(many.iter().map(ask)).await,
        }
    }

    /// A refusal that needs no asking, counted towards the next ban.
    fn known_refusal(&self, request: &mut Request) -> Option<Admission> {
        let store = self.store_time(request.mono, request.now);
        let believe = if self.link.state() == LinkState::Up { Believe::WhatIsRecent } else { Believe::WhateverIsKnown };
        for who in &request.subjects {
            let banned = self.known.known(*who, |known| known.banned(store, request.mono, believe));
            if let Some(until) = banned.flatten() {
                return Some(Admission::Banned { until: request.now + until.since(store) });
            }
        }
        let mut refused = false;
        for line in request.lines.iter_mut().filter(|line| line.group.is_some()) {
            let quota = line.ask.limit.quota;
            let denied = self.known.known(line.ask.key, |known| known.denied(&quota, request.cost, request.mono));
            if let Some(denial) = denied.flatten() {
                line.ask.limit.decision = self.as_seen(&line.ask, store);
                // Rounded up: the client is told a wait that is enough.
                let wait = denial.free.saturating_duration_since(request.mono) + Duration::from_micros(999);
                let retry_after = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
                line.ask.limit.decision.verdict = Verdict::Deny { retry_after };
                line.ask.limit.decision.reset = line.ask.limit.decision.reset.min(retry_after);
                refused = true;
            }
        }
        if !refused {
            return None;
        }
        for line in request.lines.iter_mut().filter(|line| line.group.is_some() && !line.ask.limit.violated()) {
            line.ask.limit.decision = self.as_seen(&line.ask, store);
        }
        if let Some(who) = request.refused_who() {
            self.known.with(who, |known| known.refusals = known.refusals.saturating_add(1));
        }
        Some(Admission::Limited { retry_after: request.wait() })
    }

    /// What a limit says of itself, from what was last seen of its bucket.
    fn as_seen(&self, ask: &Ask, store: Millis) -> limit::Decision {
        let seen = self.known.known(ask.key, |known| known.seen).flatten();
        limit::take(seen, &ask.limit.quota, 0, store).1
    }

    /// Pays from leases what they can pay, and chooses which hot keys to fetch a lease for.
    fn lease(&self, request: &mut Request) {
        if !self.leases || request.cost == 0 {
            return;
        }
        let (live, since_start) = (self.live(), request.mono.saturating_duration_since(self.start));
        let (cost, mono) = (request.cost, request.mono);
        let mut paid = 0;
        for line in request.lines.iter_mut().filter(|line| line.group.is_some()) {
            let quota = line.ask.limit.quota;
            let found = self.known.with(line.ask.key, |known| {
                let hot = known.touch(cost, since_start);
                let lease = known.lease.as_mut().filter(|lease| lease.quota == quota);
                let due = lease.as_ref().is_none_or(|lease| lease.low(mono));
                let free = known.fetching.is_none_or(|since| mono.saturating_duration_since(since) > lease::LIFE);
                if let Some(rate) = hot
                    && due
                    && free
                {
                    let held = lease.as_ref().map_or(0, |lease| lease.usable(mono));
                    let more = lease::size(&quota, rate, live).saturating_sub(held);
                    if more > cost {
                        known.fetching = Some(mono);
                        return (Leased::Fetches(more), None);
                    }
                }
                let paid = lease.and_then(|lease| lease.spend(cost, mono).then(|| lease.decision(mono)));
                (if paid.is_some() { Leased::Yes } else { Leased::No }, paid)
            });
            let Some((leased, decision)) = found else { continue };
            line.leased = leased;
            if let Some(decision) = decision {
                line.ask.limit.decision = decision;
                paid += 1;
            }
        }
        count(&self.counters.leased, paid);
    }

    /// What the answers come to.
    async fn weigh(
        &self,
        request: &mut Request,
        parts: &[Part],
        answers: Vec<Result<Taken, Unavailable>>,
        received: Instant,
    ) -> Result<Ruled, Away> {
        let (mut sequence, mut over, mut banned, mut began) = (None, false, None, None);
        for (part, taken) in parts.iter().zip(&answers).filter_map(|(part, answer)| Some((part, answer.as_ref().ok()?)))
        {
            if part.decides() {
                self.tell_time(taken.now, received);
            }
            sequence = sequence.or(taken.sequence);
            request.learn(part, taken);
            match taken.said {
                Said::Taken => {}
                Said::Over => over = true,
                Said::Banned { until, .. } => banned = banned.or(Some((until, taken.now))),
                Said::BanBegan { until, .. } => (over, began) = (true, Some((until, taken.now))),
            }
        }
        if let Some(sequence) = &sequence {
            self.heard(sequence);
        }
        let mut ruled = Ruled { admission: Admission::Admitted, sequence, decided: Decided::Store };
        if let Some((until, store)) = banned {
            ruled.admission = Admission::Banned { until: request.now + until.since(store) };
        } else if over {
            let wait = Admission::Limited { retry_after: request.wait() };
            ruled.admission =
                began.map_or(wait, |(until, store)| Admission::BanBegan { until: request.now + until.since(store) });
        }
        let mut away = None;
        let lost = parts.iter().zip(&answers).any(|(part, answer)| answer.is_err() && part.decides());
        if ruled.admission == Admission::Admitted && lost {
            match self.rule_alone(request, parts, &answers, received) {
                Ok(admission) => (ruled.admission, ruled.decided) = (admission, Decided::Local),
                Err(error) => away = Some(error),
            }
        }
        if ruled.admission == Admission::Admitted && away.is_none() {
            self.keep(request, parts, &answers, received);
            return Ok(ruled);
        }
        self.remember_refusal(request, parts, &answers, received);
        let began = self.undo(request, parts, &answers, &ruled, received).await;
        if let (Some(until), Admission::Limited { .. }) = (began, ruled.admission) {
            ruled.admission = Admission::BanBegan { until };
        }
        away.map_or(Ok(ruled), Err)
    }

    /// After a yes: what the buckets hold now, and the leases that came along.
    fn keep(&self, request: &Request, parts: &[Part], answers: &[Result<Taken, Unavailable>], received: Instant) {
        for (part, answer) in parts.iter().zip(answers) {
            let Ok(taken) = answer else { continue };
            for line in part.lines.iter().filter_map(|place| request.lines.get(*place)) {
                let fetched = matches!(line.leased, Leased::Fetches(_));
                self.known.with(line.ask.key, |known| {
                    known.see(line.after, taken.now);
                    known.denial = None;
                    if fetched {
                        let quota = line.ask.limit.quota;
                        let older = known.lease.filter(|lease| lease.quota == quota);
                        let older = older.map_or(0, |lease| lease.ticks(received));
                        let units = line.charged.saturating_sub(request.cost);
                        known.fetching = None;
                        known.lease = Some(Lease::granted(quota, units, line.after, taken.now, request.mono, older));
                        count(&self.counters.lease_units_granted, u64::from(units));
                    }
                });
            }
        }
        for line in parts.iter().zip(answers).filter(|(_, answer)| answer.is_err()).flat_map(|(part, _)| &part.lines) {
            if let Some(line) = request.lines.get(*line) {
                self.known.known(line.ask.key, |known| known.fetching = None);
            }
        }
    }

    /// After a no: until when each refusal holds.
    fn remember_refusal(
        &self,
        request: &Request,
        parts: &[Part],
        answers: &[Result<Taken, Unavailable>],
        received: Instant,
    ) {
        for line in request.lines.iter().filter(|line| matches!(line.leased, Leased::Fetches(_))) {
            self.known.known(line.ask.key, |known| known.fetching = None);
        }
        for line in request.lines.iter().filter(|line| line.leased == Leased::Yes) {
            self.known.known(line.ask.key, |known| known.lease.as_mut().map(|lease| lease.restore(request.cost)));
        }
        for (part, answer) in parts.iter().zip(answers) {
            let Ok(taken) = answer else { continue };
            if let Said::Banned { until, who } | Said::BanBegan { until, who } = taken.said
                && let Some(who) = part.subjects.get(who).and_then(|place| request.subjects.get(*place))
            {
                self.hear_of_ban(*who, until, received);
            }
            for line in part.lines.iter().filter_map(|place| request.lines.get(*place)) {
                let denial = match line.ask.limit.decision.verdict {
                    Verdict::Deny { retry_after } if line.group.is_some() => Some(Denial {
                        quota: line.ask.limit.quota,
                        cost: request.cost,
                        // The store's clock is cut to a millisecond, so this may be as much longer than the store would
                        // refuse, but never longer than the client was told. Shorter, and everybody asks for that long.
                        until: request.mono + retry_after,
                        free: received + retry_after,
                    }),
                    _ => None,
                };
                self.known.with(line.ask.key, |known| {
                    known.see(line.after, taken.now);
                    known.denial = denial;
                });
            }
        }
    }

    /// After a no on a cluster: gives back what other calls took, and counts the refusal.
    async fn undo(
        &self,
        request: &mut Request,
        parts: &[Part],
        answers: &[Result<Taken, Unavailable>],
        ruled: &Ruled,
        received: Instant,
    ) -> Option<Millis> {
        let mut back = Vec::new();
        for (part, answer) in parts.iter().zip(answers) {
            let Ok(taken) = answer else { continue };
            if taken.said != Said::Taken {
                continue;
            }
            for line in part.lines.iter().filter_map(|place| request.lines.get(*place)) {
                let since = u64::try_from(taken.now.0).unwrap_or(0);
                let quota = line.ask.limit.quota;
                back.push((line.ask.key, quota, u64::from(line.charged) * quota.ticks().unit, since));
            }
            request.unlearn(part, taken);
        }
        let refused = request.refused_who().filter(|_| {
            self.link.is_cluster()
                && ruled.decided == Decided::Store
                && matches!(ruled.admission, Admission::Limited { .. })
        });
        let (_, began) = tokio::join!(self.give_back(&back), async {
            match refused {
                Some(who) => self.refuse(who, 1, request.now, received).await,
                None => None,
            }
        });
        began
    }

    /// Decides the limits whose store gave no answer.
    fn rule_alone(
        &self,
        request: &mut Request,
        parts: &[Part],
        answers: &[Result<Taken, Unavailable>],
        received: Instant,
    ) -> Result<Admission, Away> {
        let lost = || parts.iter().zip(answers).filter(|(_, answer)| answer.is_err()).map(|(part, _)| part);
        match self.policy {
            Policy::Refuse => {
                count(&self.counters.refused_away, 1);
                return Err(Away { retry_after: outage::RETRY });
            }
            Policy::Open => {
                count(&self.counters.admitted_open, 1);
                return Ok(Admission::Admitted);
            }
            Policy::Local => count(&self.counters.decided_locally, 1),
        }
        let at = self.store_time(received, request.now);
        for who in lost().flat_map(|part| &part.subjects).filter_map(|place| request.subjects.get(*place)) {
            if let Some(until) = self.local.banned(*who, at) {
                return Ok(Admission::Banned { until: request.now + until.since(at) });
            }
        }
        let places: Vec<usize> = lost().flat_map(|part| &part.lines).copied().collect();
        let mut asks: Vec<Ask> =
            places.iter().filter_map(|place| request.lines.get(*place)).map(|line| line.ask).collect();
        let seen = |key| self.known.known(key, |known| known.seen).flatten();
        let verdict = outage::decide(&self.local, &mut asks, seen, request.cost, self.live(), at);
        for (place, ask) in places.iter().zip(&asks) {
            if let Some(line) = request.lines.get_mut(*place) {
                line.ask = *ask;
            }
        }
        if verdict.admits() {
            self.owe(&asks, request.cost);
            return Ok(Admission::Admitted);
        }
        let began = request.refused_who().and_then(|who| self.local.count_refusal(who, at));
        Ok(match began {
            Some(until) => Admission::BanBegan { until: request.now + until.since(at) },
            None => Admission::Limited { retry_after: request.wait() },
        })
    }

    /// Remembers what was admitted here, to charge it when the store is back.
    fn owe(&self, asks: &[Ask], cost: u32) {
        for ask in asks {
            let quota = ask.limit.quota;
            let began = self.known.with(ask.key, |known| match &mut known.owed {
                Some(owed) => {
                    (owed.quota, owed.units) = (quota, owed.units.saturating_add(u64::from(cost)));
                    false
                }
                none => {
                    *none = Some(Owed { quota, units: u64::from(cost) });
                    true
                }
            });
            match began {
                Some(true) => drop(self.owing.fetch_add(1, Ordering::Relaxed)),
                Some(false) => {}
                None => count(&self.counters.replay_lost, u64::from(cost)),
            }
        }
    }

    /// Counts refusals of `who`, those decided on this node before included; the end of the ban that began.
    pub(super) async fn refuse(&self, who: Key, refusals: u32, now: Millis, mono: Instant) -> Option<Millis> {
        let before = self.known.known(who, |known| std::mem::take(&mut known.refusals)).unwrap_or(0);
        let bans = self.bans();
        bans.ticks()?;
        let all = before.saturating_add(refusals);
        let mut numbers = Doubles::default();
        numbers.push(&[u64::from(all)]).push_bans(Some(&bans));
        let answer = self.eval(&scripts::REFUSE, &[self.names.ban(who)], &[numbers.finish()]).await;
        match answer.and_then(|answer| scripts::pair(&answer)) {
            Ok((_, 0)) => None,
            Ok((store, until)) => {
                self.hear_of_ban(who, Millis(until), mono);
                Some(now + Millis(until).since(Millis(store)))
            }
            Err(_) => {
                let at = self.store_time(mono, now);
                // More than this many lead to a ban at once anyway.
                let until = (0..all.min(10_000)).find_map(|_| self.local.count_refusal(who, at))?;
                self.hear_of_ban(who, until, mono);
                Some(now + until.since(at))
            }
        }
    }

    /// Gives ticks back, each with the store's moment at which they were all in the bucket; what cannot be told to the store
    /// stays charged.
    pub(super) async fn give_back(&self, back: &[(Key, Quota, u64, u64)]) {
        let most = if self.link.is_cluster() { 1 } else { 64 };
        let calls = back.chunks(most).map(|chunk| async move {
            let (mut keys, mut numbers) = (Vec::with_capacity(chunk.len()), Doubles::default());
            for (key, quota, back, since) in chunk {
                let ticks = quota.ticks();
                keys.push(self.names.bucket(*key));
                numbers.push(&[u64::from(ticks.drain), ticks.capacity, (*back).min(ticks.capacity), *since]);
            }
            // Less is admitted when this fails, never more.
            let _ = self.eval(&scripts::REFUND, &keys, &[numbers.finish()]).await;
        });
        join_all(calls).await;
    }

    pub(super) async fn eval(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<redis::Value, Unavailable> {
        count(&self.counters.round_trips, 1);
        let answer = self.link.eval(script, keys, args).await;
        if answer.is_err() {
            count(&self.counters.failures, 1);
        }
        answer
    }

    pub(super) fn hear_of_ban(&self, who: Key, until: Millis, heard: Instant) {
        self.known.with(who, |known| known.ban = Some(Ban { until, heard }));
    }

    fn heard(&self, sequence: &Sequence) {
        self.sequence.fetch_max(sequence.number, Ordering::AcqRel);
    }

    pub(super) fn bans(&self) -> BanPolicy {
        *self.bans.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed).max(self.least_nodes)
    }

    fn tell_time(&self, store: Millis, received: Instant) {
        let passed = i64::try_from(received.saturating_duration_since(self.start).as_millis()).unwrap_or(i64::MAX);
        self.clock.store(store.0.saturating_sub(passed), Ordering::Relaxed);
    }

    /// The store's clock, as far as this node can tell; its own before it has heard any.
    pub(super) fn store_time(&self, mono: Instant, now: Millis) -> Millis {
        match self.clock.load(Ordering::Relaxed) {
            UNKNOWN => now,
            offset => Millis(offset) + mono.saturating_duration_since(self.start),
        }
    }
}

fn ruled(admission: Admission, decided: Decided) -> Ruled {
    Ruled { admission, sequence: None, decided }
}
